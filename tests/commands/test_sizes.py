"""Image sizes: what a test pipeline makes of images at another size, against arithmetic by hand."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope

from mmrope.commands.cli import parse_size
from mmrope.commands.errors import CommandError
from mmrope.commands.sizes import reference_size, size_of_tests, size_overrides

ROOT = Path(__file__).parents[2] / 'configs'
STEPS = {
    'box': [dict(type='Resize', scale=(128, 128), keep_ratio=True)],
    'coco': [dict(type='Resize', scale=(1333, 800), keep_ratio=True)],
    'stretched': [dict(type='Resize', scale=(64, 32)), dict(type='Pad', size=(64, 32))],
    'imagenet': [dict(type='ResizeEdge', scale=256, edge='short'), dict(type='CenterCrop', crop_size=224)],
    'edge': [dict(type='mmpretrain.ResizeEdge', scale=100)],
    'mask2former': [dict(type='ResizeShortestEdge', scale=512, max_size=2048)],
}


def config(*steps: dict, **model: Any) -> Config:
    dataset = dict(type='CocoDataset', pipeline=[dict(type='LoadImageFromFile'), *copy.deepcopy(steps)])
    return Config(dict(model=model, test_dataloader=dict(dataset=dataset)))


def resized(cfg: Config, size: str, height: int, width: int) -> tuple[int, int]:
    """The shape that the pipeline of a config gives an image, at another size."""
    cfg.merge_from_dict(size_overrides(cfg, parse_size(size)))
    for scope in ('mmdet', 'mmseg', 'mmpretrain'):
        init_default_scope(scope)
    steps = [dict(step) for step in cfg.test_dataloader.dataset.pipeline[1:]]
    with DefaultScope.overwrite_default_scope('mmseg' if 'ResizeShortestEdge' in str(steps) else 'mmpretrain'):
        image = np.zeros((height, width, 3), np.uint8)
        return Compose(steps)(dict(img=image, img_shape=(height, width)))['img'].shape[:2]


@pytest.mark.parametrize(
    'steps, size, image, expected',
    [
        ('box', '96', (100, 50), (96, 48)),
        ('box', '96x160', (100, 50), (96, 160)),
        ('box', 'short:96', (100, 50), (192, 96)),
        ('coco', '400', (300, 400), (400, 533)),
        ('coco', '400', (300, 1500), (133, 666)),  # 1333 / 2 limits the longer side
        ('coco', 'short:400', (300, 1500), (400, 2000)),
        ('coco', '800', (480, 640), (800, 1067)),
        ('stretched', '64', (10, 20), (64, 128)),
        ('stretched', '40x24', (10, 20), (40, 24)),
        ('imagenet', '384', (500, 400), (384, 384)),
        ('imagenet', '224x384', (300, 400), (224, 384)),
        ('edge', '50', (200, 300), (50, 75)),
        ('edge', 'short:50', (200, 300), (50, 75)),
        ('mask2former', '256', (100, 200), (256, 512)),
        ('mask2former', '256', (100, 800), (128, 1024)),
    ],
)
def test_images_get_the_size(steps: str, size: str, image: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized(config(*STEPS[steps]), size, *image) == expected


@pytest.mark.parametrize('name', sorted(path.name for path in ROOT.glob('*.py')))
def test_at_its_own_size_a_config_is_unchanged(name: str) -> None:
    cfg = Config.fromfile(ROOT / name)
    own = reference_size(cfg.test_dataloader.dataset.pipeline)
    sized = copy.deepcopy(cfg)
    overrides = size_overrides(cfg, parse_size(str(own)))
    assert overrides
    sized.merge_from_dict(overrides)
    assert sized.test_dataloader == cfg.test_dataloader and sized.model == cfg.model


def test_steps_within_a_step_are_resized() -> None:
    cfg = Config.fromfile(ROOT / 'eomt_lingbot_vit_s_coco_instance.py')
    cfg.merge_from_dict(size_overrides(cfg, parse_size('320')))
    pipeline = cfg.test_dataloader.dataset.pipeline
    assert pipeline[1].scale == (320, 320) and pipeline[2].transforms[0].size == (320, 320)


def test_a_pipeline_may_be_a_tuple() -> None:
    cfg = config(*STEPS['coco'])
    cfg.test_dataloader.dataset.pipeline = tuple(cfg.test_dataloader.dataset.pipeline)
    cfg.merge_from_dict(size_overrides(cfg, parse_size('320')))
    assert reference_size(cfg.test_dataloader.dataset.pipeline) == 320


def test_every_data_set_below_wrappers_is_resized() -> None:
    part = config(*STEPS['box']).test_dataloader.dataset
    cfg = Config(dict(model={}, test_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=[part, part]))))
    cfg.merge_from_dict(size_overrides(cfg, parse_size('32')))
    assert [dataset.pipeline[1].scale for dataset in cfg.test_dataloader.dataset.datasets] == [(32, 32)] * 2


@pytest.mark.parametrize('size, expected', [('32', 4), ('48', 6), ('24', 3), ('96', 12), ('64x32', 4), ('2', 1)])
def test_windows_grow_along_when_asked(size: str, expected: int) -> None:
    cfg = config(dict(type='Resize', scale=(32, 32)), backbone=dict(type='mmrope.RoPESwin', window_size=4))
    assert size_overrides(cfg, parse_size(size), scale_windows=True)['model.backbone.window_size'] == expected
    assert 'model.backbone.window_size' not in size_overrides(cfg, parse_size(size))


@pytest.mark.parametrize('kind, expected', [('mmrope.RoPESwin', 12), ('mmrope.RoPEViT', None), ('mmdet.ResNet', None)])
def test_the_default_window_counts(kind: str, expected: int | None) -> None:
    """Upstream's 12 at 384 for a Swin of 7 at 224; global attention and convolutions have none."""
    cfg = config(*STEPS['imagenet'], backbone=dict(type=kind))
    overrides = size_overrides(cfg, parse_size('384'), scale_windows=True)
    assert overrides.get('model.backbone.window_size') == expected


@pytest.mark.parametrize('size, expected', [('32', (32, 64)), ('24x40', (24, 40))])
def test_fixed_padding_follows(size: str, expected: tuple[int, int]) -> None:
    """MMSegmentation has (height, width) there, the pipeline (width, height)."""
    cfg = config(
        dict(type='Resize', scale=(128, 64)), data_preprocessor=dict(size=(8, 8), test_cfg=dict(size=(64, 128)))
    )
    cfg.merge_from_dict(size_overrides(cfg, parse_size(size)))
    assert cfg.model.data_preprocessor.test_cfg.size == expected
    assert cfg.model.data_preprocessor.size == (8, 8)


def test_sides_before_a_crop_are_rounded_down_as_the_authors_of_the_swins_have_it() -> None:
    for size in ('384', '384x384'):
        overrides = size_overrides(config(*STEPS['imagenet']), parse_size(size))
        assert overrides['test_dataloader.dataset.pipeline.1.scale'] == 438  # int(256 / 224 * 384)


@pytest.mark.parametrize('size, expected', [('640', 640), ('640x640', 640), ('640x960', 320), ('1024', 1024)])
def test_padding_to_a_square_follows(size: str, expected: int) -> None:
    """ViTDet's; of an exact size both sides are multiples of the divisor, so that nothing is added."""
    cfg = Config.fromfile(ROOT / 'mask_rcnn_rope_mixed_vit_b_coco.py')
    assert size_overrides(cfg, parse_size(size))['model.data_preprocessor.pad_size_divisor'] == expected
    with pytest.raises(CommandError, match=r'short:640\b.*model\.data_preprocessor\.pad_size_divisor=1024\b'):
        size_overrides(cfg, parse_size('short:640'))


@pytest.mark.parametrize('divisor', [1, 32])
def test_padding_to_a_stride_stays(divisor: int) -> None:
    cfg = config(*STEPS['coco'], data_preprocessor=dict(pad_size_divisor=divisor))
    for size in ('400', '400x640', 'short:400'):
        assert 'model.data_preprocessor.pad_size_divisor' not in size_overrides(cfg, parse_size(size))


@pytest.mark.parametrize(
    'steps, size, words',
    [
        ([], '32', 'Resize.*ResizeShortestEdge.*ResizeEdge.* LoadImageFromFile'),
        ([dict(type='Resize', scale_factor=2.0)], '32', 'Resize.*ResizeShortestEdge.*ResizeEdge.* Resize'),
        (STEPS['imagenet'], 'short:32', 'short:32.*CenterCrop'),
        (STEPS['edge'], '32x48', '32x48.* ResizeEdge'),
        (STEPS['mask2former'], '32x48', '32x48.* ResizeShortestEdge'),
    ],
)
def test_a_pipeline_that_cannot_be_changed_is_named(steps: list[dict], size: str, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        size_overrides(config(*steps), parse_size(size))


@pytest.mark.parametrize(
    'name, size',
    [
        ('mask_rcnn_rope_mixed_swin_t_coco', (800, 1344)),  # fits into (1333, 800), padded to 32
        ('upernet_rope_mixed_swin_t_ade20k', (512, 512)),  # the shorter side at 512
        ('mask_rcnn_rope_mixed_vit_tiny_digits', (128, 128)),
        ('imagenet_rope_mixed_swin_t', (224, 224)),
    ],
)
def test_the_size_that_a_config_tests_at(name: str, size: tuple[int, int]) -> None:
    found, source = size_of_tests(Config.fromfile(ROOT / f'{name}.py'))
    assert found == size and 'test pipeline' in source


def test_the_size_that_a_preprocessor_pads_to_goes_first() -> None:
    cfg = Config(dict(model=dict(data_preprocessor=dict(test_cfg=dict(size=(96, 160))))))
    assert size_of_tests(cfg) == ((96, 160), 'model.data_preprocessor.test_cfg.size')
    assert size_of_tests(Config(dict(model=dict())))[0] == (224, 224)
