"""Checkpoint files: from a name to a local file, and from a file to tensors, never code."""
