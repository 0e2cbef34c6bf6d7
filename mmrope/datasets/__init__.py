"""The digits data sets: scenes with boxes, masks and label maps, and images of single digits."""
