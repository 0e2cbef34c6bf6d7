"""The embedded data set: scenes of handwritten digits with boxes, masks and label maps."""
