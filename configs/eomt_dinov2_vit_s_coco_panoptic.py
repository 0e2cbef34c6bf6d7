# The authors' model, to test it or to train on from it.
_base_ = ['./_base_/backbones/dinov2_vit_s.py', './_base_/recipes/eomt_panoptic_dinov2.py']
model = dict(backbone=dict(**_base_.backbone, img_size=640), panoptic_head=dict(embed_dims=384))
load_from = 'hf-hub:tue-mps/coco_panoptic_eomt_small_640_2x'
