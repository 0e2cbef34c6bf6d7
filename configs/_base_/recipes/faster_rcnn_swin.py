# Faster R-CNN with MMDetection's data and schedule for Swin: 12 epochs of COCO.
_base_ = [
    '../models/faster_rcnn_swin.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../schedules/swin_1x.py',
    '../detection_runtime.py',
]
