"""Another image size for a whole config: every pipeline, crop and padding, in training and in tests."""

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmseg.models import EncoderDecoder

from mmrope.commands.checks.data import steps_of
from mmrope.commands.cli import parse_pixels
from mmrope.commands.errors import CommandError
from mmrope.commands.training_size import SIZED, set_size
from tests.helpers.recipes import CONFIGS, configs


def sized(name: str, size: str) -> Config:
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    set_size(cfg, parse_pixels(size))
    return cfg


def sizes(pipeline: Any) -> list[Any]:
    return [step[key] for step in steps_of(pipeline) for key in SIZED.get(step['type'], ()) if key in step]


def test_large_scale_jitter_at_half_the_size() -> None:
    cfg = sized('mask_rcnn_rope_mixed_vit_b_coco', '512')
    assert sizes(cfg.train_dataloader.dataset.pipeline) == [(512, 512), (512, 512)]
    assert sizes(cfg.val_dataloader.dataset.pipeline) == sizes(cfg.test_dataloader.dataset.pipeline) == [(512, 512)]
    assert cfg.model.data_preprocessor.pad_size_divisor == 512


def test_nested_scales_and_crops_at_half_the_size() -> None:
    cfg = sized('dino_rope_mixed_vit_b_coco', '400')
    pipeline = cfg.train_dataloader.dataset.pipeline
    scales, shorter, crop, again = sizes(pipeline)
    assert scales == again == [(side // 2, 666) for side in range(480, 801, 32)]
    assert shorter == [(200, 2100), (250, 2100), (300, 2100)] and crop == (192, 300)
    assert sizes(cfg.test_dataloader.dataset.pipeline) == [(666, 400)]
    assert cfg.model.data_preprocessor.pad_size_divisor == 32


def test_segmentation_at_half_the_size_with_its_augmented_tests() -> None:
    cfg = sized('upernet_ape_vit_b_ade20k', '256')
    assert sizes(cfg.train_dataloader.dataset.pipeline) == [(1024, 256), (256, 256)]
    assert sizes(cfg.tta_pipeline)[:2] == [(512, 128), (768, 192)]
    assert tuple(cfg.model.data_preprocessor.size) == (256, 256) and cfg.model.backbone.img_size == 256
    assert cfg.model.data_preprocessor.test_cfg.size_divisor == 16
    mask2former = sized('mask2former_rope_mixed_swin_s_ade20k', '256')
    scales, longest, crop = sizes(mask2former.train_dataloader.dataset.pipeline)
    assert (scales[0], scales[-1], longest, crop) == (128, 512, 1024, (256, 256))


def test_an_exact_size_is_width_first_for_resizing_and_as_the_host_has_it_for_crops() -> None:
    detector = sized('mask_rcnn_rope_mixed_vit_b_coco', '320x480')
    assert sizes(detector.train_dataloader.dataset.pipeline) == [(480, 320), (480, 320)]
    crop = next(step for step in detector.train_dataloader.dataset.pipeline if step.type == 'RandomCrop')
    assert crop.crop_type == 'absolute'  # MMDetection's absolute_range would draw both sides from 480 to 320
    assert detector.model.data_preprocessor.pad_size_divisor == 160
    segmenter = sized('upernet_rope_mixed_swin_t_ade20k', '320x480')
    assert sizes(segmenter.train_dataloader.dataset.pipeline) == [(480, 320), (320, 480)]
    assert tuple(segmenter.model.data_preprocessor.size) == (320, 480)
    for cfg in (detector, segmenter):
        assert not any(step.get('keep_ratio') for step in steps_of(cfg.train_dataloader.dataset.pipeline))
        assert sizes(cfg.test_dataloader.dataset.pipeline) == [(480, 320)]
    assert sizes(sized('dino_rope_mixed_vit_b_coco', '320x480').train_dataloader.dataset.pipeline)[2] == (153, 240)


def test_a_config_of_classes_needs_no_scope() -> None:
    """As in pure Python: the library is that of the model's class, and decides the order of a crop's sides."""
    cfg = Config.fromfile(CONFIGS / 'upernet_rope_mixed_swin_t_ade20k.py')
    cfg.model.type, cfg.default_scope = EncoderDecoder, None
    set_size(cfg, parse_pixels('320x480'))
    assert sizes(cfg.train_dataloader.dataset.pipeline) == [(480, 320), (320, 480)]


def test_a_config_without_a_test_set_is_named() -> None:
    cfg = Config.fromfile(CONFIGS / 'upernet_rope_mixed_swin_t_ade20k.py')
    cfg.pop('test_dataloader')
    with pytest.raises(CommandError, match=r'swin_t_ade20k\.py: there is no test_dataloader'):
        set_size(cfg, parse_pixels('320'))


def test_a_resize_by_the_shorter_side_takes_no_exact_size() -> None:
    with pytest.raises(CommandError, match='320x480: a pipeline has RandomChoiceResize.*give the size as N'):
        sized('mask2former_rope_mixed_swin_s_ade20k', '320x480')


def mixed(*steps: dict[str, Any], **preprocessor: Any) -> Config:
    """A detector on a mix of several images, whose wrapper has the ``steps``; it tests at a shorter side of 800."""
    inner = dict(type='CocoDataset', pipeline=[dict(type='LoadImageFromFile')])
    test = dict(type='CocoDataset', pipeline=[dict(type='Resize', scale=(1333, 800), keep_ratio=True)])
    return Config(
        dict(
            default_scope='mmdet',
            model=dict(data_preprocessor=preprocessor),
            train_dataloader=dict(dataset=dict(type='MultiImageMixDataset', dataset=inner, pipeline=list(steps))),
            test_dataloader=dict(dataset=test),
        )
    )


def test_steps_of_a_mix_and_augmentations_of_a_batch_follow() -> None:
    steps = [
        dict(type='Mosaic', img_scale=(640, 640)),
        dict(type='RandomAffine', border=(-320, -320)),
        dict(type='RandomAffine', border=(0, 0)),
        dict(type='FixScaleResize', scale=(800, 1333)),
        dict(type='RandomResize', scale=[(1333, 640), (1333, 800)]),
    ]
    augments = [dict(type='BatchFixedSizePad', size=(1024, 768)), dict(type='Other', random_size_range=(480, 800))]
    cfg = mixed(*steps, batch_augments=augments)
    set_size(cfg, parse_pixels('400'))
    assert sizes(cfg.train_dataloader.dataset.pipeline) == [
        (320, 320),
        (-160, -160),
        (0, 0),
        (400, 666),
        [(666, 320), (666, 400)],
    ]
    padded, drawn = cfg.model.data_preprocessor.batch_augments
    assert (padded['size'], drawn.random_size_range) == ((512, 384), (240, 400))


def test_an_exact_size_of_scales_and_batches() -> None:
    cfg = mixed(dict(type='RandomResize', scale=[(1333, 640), (1333, 800)]))
    cfg.model.data_preprocessor.batch_augments = [dict(type='BatchFixedSizePad', size=(1024, 768))]
    set_size(cfg, parse_pixels('400x600'))
    (step,) = cfg.train_dataloader.dataset.pipeline
    assert (step.scale, step.keep_ratio) == ([(480, 320), (600, 400)], False)
    assert cfg.model.data_preprocessor.batch_augments[0]['size'] == (400, 600)


@pytest.mark.parametrize(
    'steps, augments, size',
    [
        ([dict(type='Mosaic', img_scale=(640, 640))], [], '320x480'),
        ([dict(type='RandomCenterCropPad', crop_size=(511, 511))], [], '320'),
        ([], [dict(type='BatchSyncRandomResize', random_size_range=(480, 800))], '320x480'),
    ],
)
def test_what_has_no_such_size_is_named(steps: list[dict], augments: list[dict], size: str) -> None:
    with pytest.raises(
        CommandError, match=f'{size}: .*(Mosaic|RandomCenterCropPad with crop_size|BatchSyncRandomResize)'
    ):
        set_size(mixed(*steps, batch_augments=augments), parse_pixels(size))


@pytest.mark.parametrize('path', configs('*_coco.py') + configs('*_ade20k.py'))
def test_the_size_of_a_config_changes_nothing(path: Path) -> None:
    before = Config.fromfile(path)
    reference = min(sizes(before.test_dataloader.dataset.pipeline)[0])
    after = Config.fromfile(path)
    set_size(after, parse_pixels(str(reference)))
    assert after.to_dict() == before.to_dict()
