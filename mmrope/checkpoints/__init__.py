"""Files that hold tensors: from a name to a file of this machine, and from a file to tensors, never code."""
