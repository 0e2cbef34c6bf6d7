# UperNet on a pretrained ViT of another family: 160,000 iterations of ADE20k, with the layer decay that the authors of
# EVA-02 have for B. For other families it is this project's choice, and so is that no map is normalised.
_base_ = [
    '../models/upernet_vit.py',
    '../datasets/ade20k.py',
    '../schedules/upernet_160k.py',
    '../segmentation_runtime.py',
]
model = dict(backbone=dict(final_norm=False))
optim_wrapper = dict(
    constructor='mmrope.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, decay_rate=0.85),
)
