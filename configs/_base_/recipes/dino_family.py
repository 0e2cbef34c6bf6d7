# DINO on a pretrained ViT of another family: 12 epochs of COCO, with layer decay in place of one rate for the backbone.
# Windows, schedule and layer decay are this project's choice for all of them.
_base_ = [
    '../models/dino_vit.py',
    '../datasets/coco_detection_ms_crop.py',
    '../schedules/dino_12e.py',
    '../detection_runtime.py',
]
model = dict(backbone=dict(window_size=16))
optim_wrapper = dict(
    constructor='mmrope.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, decay_rate=0.7),
)
