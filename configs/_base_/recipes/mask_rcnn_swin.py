# MMDetection's Mask R-CNN on Swin: 12 epochs of COCO.
_base_ = [
    '../models/mask_rcnn_swin.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../schedules/swin_1x.py',
    '../detection_runtime.py',
]
