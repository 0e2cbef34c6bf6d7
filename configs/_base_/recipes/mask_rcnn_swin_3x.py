# MMDetection's Mask R-CNN on Swin: 36 epochs of COCO at many scales. MMDetection trains Swin-S in mixed precision
# (here: --amp), and Swin-T with and without.
_base_ = [
    '../models/mask_rcnn_swin.py',
    '../datasets/coco_instance_ms_crop.py',
    '../schedules/swin_3x.py',
    '../detection_runtime.py',
]
