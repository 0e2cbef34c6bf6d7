# ViTDet's Mask R-CNN: 100 epochs of COCO on 16 GPUs with 4 images each.
_base_ = [
    '../models/mask_rcnn_vitdet.py',
    '../datasets/coco_instance_lsj.py',
    '../schedules/vitdet_100e.py',
    '../detection_runtime.py',
]
