# The same on maps of stride 14: crops of 512 pixels are padded to whole patches.
_base_ = './upernet_family.py'
model = dict(data_preprocessor=dict(size=(518, 518), test_cfg=dict(size_divisor=14)))
