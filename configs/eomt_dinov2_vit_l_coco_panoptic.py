# The authors' model, to test it or to train on from it.
_base_ = ['./_base_/backbones/dinov2_vit_l.py', './_base_/recipes/eomt_panoptic_dinov2_l.py']
model = dict(backbone=dict(**_base_.backbone, img_size=640))
load_from = 'hf-hub:tue-mps/coco_panoptic_eomt_large_640'
