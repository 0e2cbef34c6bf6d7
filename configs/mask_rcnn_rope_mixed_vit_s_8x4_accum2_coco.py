_base_ = [
    './_base_/backbones/rope_mixed_vit_s.py',
    './_base_/models/mask_rcnn_vitdet.py',
    './_base_/datasets/coco_instance_lsj.py',
    './_base_/schedules/vitdet_100e_8x4_accum2.py',
    './_base_/detection_runtime.py',
]
# ViTDet has no size S: schedule and drop path are those of B, this project's choice.
model = dict(backbone=_base_.backbone, neck=dict(in_channels=384))
