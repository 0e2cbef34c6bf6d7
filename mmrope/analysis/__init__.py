"""Functions of a backbone: attention, frequencies, cost, time and memory, figures, export."""
