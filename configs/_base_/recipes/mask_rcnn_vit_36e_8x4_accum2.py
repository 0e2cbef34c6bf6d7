# ViTDet's Mask R-CNN: 36 epochs of COCO on 8 GPUs with 4 images each, two iterations per step.
_base_ = [
    '../models/mask_rcnn_vitdet.py',
    '../datasets/coco_instance_lsj.py',
    '../schedules/vitdet_36e_8x4_accum2.py',
    '../detection_runtime.py',
]
