# EoMT for instances: the 100 best of all pairs of query and class, each with its score times the mean of its mask.
_base_ = './eomt_panoptic.py'
model = dict(
    data_preprocessor=dict(pad_seg=False),
    panoptic_head=dict(num_stuff_classes=0),
    panoptic_fusion_head=dict(num_stuff_classes=0),
    test_cfg=dict(panoptic_on=False, instance_on=True),
)
