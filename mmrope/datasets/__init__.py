"""Data sets: digits as scenes with boxes, masks and label maps or as single images, and folders of a user's images."""
