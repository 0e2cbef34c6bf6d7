# The same without the cls token and with windows of 32 tokens, as in the detectors of Perception Encoder's authors.
_base_ = './mask_rcnn_family.py'
model = dict(backbone=dict(with_cls_token=False, window_size=32))
