# EoMT from scratch on scenes of digits, to try it and to overfit a few scenes. It is no quickstart: without pretrained
# weights it learns masks long before classes, and after as long as UperNet takes it tells only the background apart.
# All numbers are this project's choice.
_base_ = [
    './_base_/models/eomt_semantic.py',
    './_base_/datasets/digits_segmentation.py',
    './_base_/schedules/digits_segmentation.py',
    './_base_/segmentation_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(
        type='mmrope.RoPEViT',
        arch=dict(embed_dims=96, depth=4, num_heads=3),
        rope='mixed',
        patch_size=4,
        layer_scale_init_value=None,
        open_blocks=2,
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform', gain=0.5),
    ),
    decode_head=dict(
        embed_dims=96, num_classes=11, num_queries=20, num_blocks=2, patch_size=4, train_cfg=dict(num_points=1024)
    ),
    test_cfg=dict(_delete_=True, mode='whole'),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
custom_hooks = [*_base_.custom_hooks, dict(type='mmrope.MaskAnnealingHook')]
visualizer = dict(alpha=0.6)
