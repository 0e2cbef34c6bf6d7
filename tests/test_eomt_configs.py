"""Configs of EoMT: rates and schedules of its authors, and what their augmentations and tests do to an image."""

import copy
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope

from tests.test_configs import CONFIGS, _cheap_weights, build, each, load  # noqa: F401  # a fixture for all tests

EOMT_RATES = {  # rate of the heads, length, blocks at the full rate and warm-ups
    'eomt_rope_mixed_vit_b_ade20k': (1e-4, 39153, 1, (500, 1000)),
    'eomt_lingbot_vit_l_ade20k': (2e-4, 20208, 1, (500, 1000)),
    'eomt_dinov3_vit_b_coco_panoptic': (2e-4, 177384, 3, (2000, 3000)),
    'eomt_lingbot_vit_l_coco_instance': (2e-4, 88692, 4, (2000, 3000)),
    'eomt_dinov2_vit_l_ade20k': (1e-4, 39153, 1, (500, 1000)),
    'eomt_dinov2_vit_s_coco_panoptic': (1e-4, 177384, 1, (500, 1000)),
    'eomt_dinov2_vit_l_coco_panoptic': (1e-4, 88692, 1, (500, 1000)),
    'eomt_dinov2_vit_l_coco_instance': (1e-4, 88692, 1, (500, 1000)),
}


@each(list(EOMT_RATES))
def test_rates_of_eomt_are_its_authors(name: str) -> None:
    """The last block learns like the heads, or all open blocks do; the backbone waits until the heads are warm."""
    from mmengine.optim import build_optim_wrapper

    cfg, (rate, length, full, warmup) = load(name), EOMT_RATES[name]
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        model = build(cfg)
        groups = build_optim_wrapper(model, {**cfg.optim_wrapper, 'type': 'OptimWrapper'}).optimizer.param_groups
    options = {param: group for group in groups for param in group['params']}
    depth = len(model.backbone.blocks)
    for key, param in model.named_parameters():
        if not param.requires_grad:
            continue
        found = re.match(r'backbone\.blocks\.(\d+)\.', key)
        above = depth - 1 - int(found[1]) if found else depth - 1
        heads = key.startswith(('decode_head', 'panoptic_head', 'backbone.norm.')) or above < full
        assert options[param]['lr'] == pytest.approx(rate * (1 if heads else 0.8**above)), key
        assert bool(options[param].get('late')) == key.startswith('backbone.'), key
    (schedule,) = cfg.param_scheduler
    assert schedule == dict(
        type='mmrope.StagedPolyLR', warmup=warmup, power=0.9, by_epoch=False, begin=0, end=cfg.train_cfg.max_iters
    )
    assert (cfg.train_cfg.max_iters, cfg.optim_wrapper.type) == (length, 'AmpOptimWrapper')
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=0.01, norm_type=2)


def picture(folder: Path, height: int, width: int) -> str:
    """A white picture on disk, so that what is padded shows."""
    path = folder / 'image.png'
    cv2.imwrite(str(path), np.full((height, width, 3), 255, np.uint8))
    return str(path)


@pytest.mark.parametrize(('shape', 'factor'), [((60, 100), 0.5), ((100, 30), 1.0), ((90, 100), 2.0)])
def test_eomt_jitters_the_longer_side_and_pads_with_black(
    shape: tuple[int, int], factor: float, tmp_path: Path
) -> None:
    cfg = load('eomt_lingbot_vit_s_ade20k')
    labels = np.full(shape, 7, np.uint8)
    cv2.imwrite(str(tmp_path / 'labels.png'), labels)
    info = dict(img_path=picture(tmp_path, *shape), seg_map_path=str(tmp_path / 'labels.png'))
    steps = [step for step in cfg.train_pipeline if step.type != 'PhotoMetricDistortion']
    assert len(steps) == len(cfg.train_pipeline) - 1
    steps[2].ratio_range = (factor, factor)
    with DefaultScope.overwrite_default_scope('mmseg'):
        data = Compose(steps)(dict(**info, label_map=None, reduce_zero_label=True, seg_fields=[]))
    height, width = (min(512, round(side * 512 * factor / max(shape))) for side in shape)
    pixels, classes = data['inputs'], data['data_samples'].gt_sem_seg.data[0]
    assert pixels.shape == (3, 512, 512) and classes.shape == (512, 512)
    assert (pixels[:, :height, :width] == 255).all() and (classes[:height, :width] == 6).all()
    outside = torch.ones(512, 512, dtype=torch.bool)
    outside[:height, :width] = False
    assert (pixels[:, outside] == 0).all() and (classes[outside] == 255).all()


@pytest.mark.parametrize('shape', [(60, 100), (100, 75)])
def test_eomt_finds_instances_in_black_squares(shape: tuple[int, int], tmp_path: Path) -> None:
    """Crops and tests are padded before pixels are normalised; the shape that masks are cut to is not padded."""
    from mmdet.registry import MODELS, TRANSFORMS

    cfg, (height, width) = load('eomt_lingbot_vit_s_coco_instance'), shape
    box = dict(
        bbox=[0, 0, width, height], bbox_label=0, ignore_flag=0, mask=[[0, 0, width, 0, width, height, 0, height]]
    )
    info = dict(img_path=picture(tmp_path, *shape), img_id=0, height=height, width=width, instances=[box])
    cfg.train_pipeline[3].ratio_range = (0.5, 0.5)
    pixel = cfg.model.data_preprocessor
    inside = tuple(round(side * 640 / max(shape)) for side in shape)
    with DefaultScope.overwrite_default_scope('mmdet'):
        preprocess = MODELS.build(cfg.model.data_preprocessor)
        for pipeline, training in ((cfg.train_pipeline, True), (cfg.test_pipeline, False)):
            data = Compose([TRANSFORMS.build(step) for step in pipeline])(copy.deepcopy(info))
            batch = preprocess(pseudo_collate([data]), training)
            (sample,), (pixels,) = batch['data_samples'], batch['inputs']
            h, w = (side // 2 for side in inside) if training else inside
            assert pixels.shape == (3, 640, 640) and sample.batch_input_shape == (640, 640)
            black, white = (
                pixels.new_tensor([(value - m) / s for m, s in zip(pixel.mean, pixel.std)]) for value in (0, 255)
            )
            expected = black[:, None, None].repeat(1, 640, 640)
            expected[:, :h, :w] = white[:, None, None]
            torch.testing.assert_close(pixels, expected)
            if training:
                masks = sample.gt_instances.masks.masks
                assert masks.shape == (1, 640, 640) and masks[0, :h, :w].all() and masks.sum() == h * w
            else:
                assert sample.img_shape == (h, w) and sample.ori_shape == shape


def test_eomt_sees_square_windows_of_a_panorama_and_averages_probabilities() -> None:
    cfg = load('eomt_rope_mixed_vit_tiny_digits')
    cfg.model.test_cfg = {**load('eomt_lingbot_vit_s_ade20k').model.test_cfg, 'crop_size': (32, 32), 'stride': (32, 32)}
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = build(cfg).eval()
        x = torch.randn(1, 3, 32, 48)
        metas = [dict(img_shape=(32, 48), ori_shape=(32, 48), pad_shape=(32, 48))]
        with torch.no_grad():
            whole = model.inference(x, metas)
            parts = [
                model.encode_decode(x[..., start : start + 32], [dict(img_shape=(32, 32), pad_shape=(32, 32))])
                for start in (0, 16)
            ]
    left, right = parts
    torch.testing.assert_close(whole[..., :16], left[..., :16])
    torch.testing.assert_close(whole[..., 32:], right[..., 16:])
    torch.testing.assert_close(whole[..., 16:32], (left[..., 16:] + right[..., :16]) / 2)
    assert 0 <= whole.min()


@each([name for name in CONFIGS if 'dinov2' in name])
def test_a_published_eomt_is_named_with_its_model(name: str) -> None:
    cfg = load(name)
    task, size = re.fullmatch(r'eomt_dinov2_vit_([sbl])_(\w+)', name).groups()[::-1]
    kind = dict(ade20k='ade20k_semantic', coco_panoptic='coco_panoptic', coco_instance='coco_instance')[task]
    word = dict(s='small', b='base', l='large')[size]
    assert re.fullmatch(rf'hf-hub:tue-mps/{kind}_eomt_{word}_(512|640)(_2x)?', cfg.load_from)
    backbone = cfg.model.backbone
    assert backbone.arch == word and str(backbone.img_size) in cfg.load_from and backbone.rope is None
    assert 'init_cfg' not in backbone
