# ViTDet's Mask R-CNN: 25 epochs of COCO on one GPU with 4 images, sixteen iterations per step.
_base_ = [
    '../models/mask_rcnn_vitdet.py',
    '../datasets/coco_instance_lsj.py',
    '../schedules/vitdet_25e_1x4_accum16.py',
    '../detection_runtime.py',
]
