# Cascade R-CNN with ViTDet's data and schedule: 100 epochs of COCO on 16 GPUs with 4 images each.
_base_ = [
    '../models/cascade_rcnn_vitdet.py',
    '../datasets/coco_detection_lsj.py',
    '../schedules/vitdet_100e.py',
    '../detection_runtime.py',
]
