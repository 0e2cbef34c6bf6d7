"""Every config parses, builds, and runs a loss and a prediction on images whose sides nothing divides."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement

ROOT = Path(__file__).parents[1] / 'configs'
CONFIGS = sorted(path.name for path in ROOT.glob('*.py'))
COCO_VIT = [
    f'mask_rcnn_{variant}_vit_{size}_coco.py'
    for variant, size in [
        ('ape', 'b'),
        ('rope_axial', 'b'),
        ('rope_axial_ape', 'b'),
        ('rope_mixed', 'b'),
        ('rope_mixed', 'l'),
        ('rope_mixed', 's'),
        ('rope_mixed_ape', 'b'),
    ]
]


def test_all_configs_are_here():
    assert CONFIGS == sorted([*COCO_VIT, 'mask_rcnn_rope_mixed_vit_tiny_digits.py'])


def load(name: str) -> Config:
    return Config.fromfile(ROOT / name)


def detection_batch(cfg: Config) -> dict:
    from mmdet.testing import demo_mm_inputs

    num_classes = cfg.model.roi_head.bbox_head.num_classes
    return demo_mm_inputs(2, [(3, 101, 133), (3, 90, 75)], num_items=[3, 1], num_classes=num_classes, with_mask=True)


@pytest.mark.parametrize('name', CONFIGS)
def test_config_builds_and_runs(name):
    from mmdet.registry import MODELS

    cfg = load(name)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        data = model.data_preprocessor(detection_batch(cfg), True)
        losses = model.forward(**data, mode='loss')
        loss, logged = model.parse_losses(losses)
        assert loss.isfinite() and len(logged) >= 5
        model.eval()
        with torch.no_grad():
            predictions = model.forward(**data, mode='predict')
    assert len(predictions) == 2
    for prediction in predictions:
        assert isinstance(prediction, BaseDataElement)
        assert prediction.pred_instances.masks.shape[1:] == tuple(prediction.ori_shape)


@pytest.mark.parametrize('name', CONFIGS)
def test_optimiser_builds_and_covers_the_model(name):
    """Every learning parameter lies in one group, and no frequency, norm or bias decays."""
    from mmdet.registry import MODELS
    from mmengine.optim import build_optim_wrapper

    cfg = load(name)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        model = MODELS.build(cfg.model)
        wrapper_cfg = {**cfg.optim_wrapper, 'type': 'OptimWrapper'}  # AMP wants a GPU
        groups = build_optim_wrapper(model, wrapper_cfg).optimizer.param_groups
    decays = {param: group['weight_decay'] for group in groups for param in group['params']}
    for key, param in model.named_parameters():
        if param.requires_grad:
            assert (decays[param] == 0) == (param.ndim < 2 or key.endswith(('freqs', 'pos_embed'))), key


@pytest.mark.parametrize('name', COCO_VIT)
def test_coco_recipe_is_vitdets(name):
    cfg = load(name)
    large = name == 'mask_rcnn_rope_mixed_vit_l_coco.py'
    backbone = cfg.model.backbone
    assert backbone.global_attn_indexes == ((5, 11, 17, 23) if large else (2, 5, 8, 11))
    assert (backbone.window_size, backbone.drop_path_rate) == (14, 0.4 if large else 0.1)
    assert backbone.rope == (None if 'mask_rcnn_ape' in name else 'axial' if 'axial' in name else 'mixed')
    assert backbone.get('ape', False) == ('ape' in name)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.betas, optimizer.weight_decay) == ('AdamW', 1e-4, (0.9, 0.999), 0.1)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.paramwise_cfg.decay_rate == (0.8 if large else 0.7)
    assert cfg.train_cfg.max_iters == 184375 and cfg.auto_scale_lr.base_batch_size == 64
    warmup, steps = cfg.param_scheduler
    assert (warmup.start_factor, warmup.end) == (1e-3, 250) and steps.milestones == [163889, 177546]
    crop = next(step for step in cfg.train_pipeline if step.type == 'RandomCrop')
    resize = next(step for step in cfg.train_pipeline if step.type == 'RandomResize')
    assert crop.crop_size == resize.scale == (1024, 1024) and resize.ratio_range == (0.1, 2.0)
    assert cfg.model.rpn_head.num_convs == 2
    assert cfg.model.neck.scales == (4, 2, 1, 0.5) and cfg.model.neck.num_outs == 5
    for head in (cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head):
        assert head.norm_cfg.type == 'mmrope.LayerNorm2d'


def test_detector_built_from_a_config_gives_every_parameter_a_gradient():
    from mmdet.registry import MODELS

    cfg = load('mask_rcnn_rope_mixed_vit_tiny_digits.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
        data = model.data_preprocessor(detection_batch(cfg), True)
        model.parse_losses(model.forward(**data, mode='loss'))[0].backward()
    without = [name for name, param in model.named_parameters() if param.grad is None]
    assert not without
