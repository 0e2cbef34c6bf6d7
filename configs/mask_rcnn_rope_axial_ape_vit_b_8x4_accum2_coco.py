_base_ = [
    './_base_/backbones/rope_axial_ape_vit_b.py',
    './_base_/models/mask_rcnn_vitdet.py',
    './_base_/datasets/coco_instance_lsj.py',
    './_base_/schedules/vitdet_100e_8x4_accum2.py',
    './_base_/detection_runtime.py',
]
model = dict(backbone=_base_.backbone)
