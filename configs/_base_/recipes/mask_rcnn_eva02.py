# The same on maps of stride 14, without the cls token, as EVA-02's detectors have it; those use patches of 16 pixels.
_base_ = './mask_rcnn_family.py'
strides = [3.5, 7, 14, 28, 56]
model = dict(
    backbone=dict(with_cls_token=False),
    rpn_head=dict(anchor_generator=dict(strides=strides)),
    roi_head=dict(
        bbox_roi_extractor=dict(featmap_strides=strides[:4]),
        mask_roi_extractor=dict(featmap_strides=strides[:4]),
    ),
)
