# Faster R-CNN on a plain backbone: mask_rcnn_vitdet.py without its mask head. ViTDet trains boxes together with masks;
# boxes alone are this project's choice.
# Experiments merge one of ../backbones into model.backbone.
_base_ = './mask_rcnn_vitdet.py'
model = dict(type='FasterRCNN', roi_head=dict(mask_roi_extractor=None, mask_head=None))
