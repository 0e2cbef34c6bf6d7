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


@pytest.mark.parametrize('path', configs('*_coco.py') + configs('*_ade20k.py'))
def test_the_size_of_a_config_changes_nothing(path: Path) -> None:
    before = Config.fromfile(path)
    reference = min(sizes(before.test_dataloader.dataset.pipeline)[0])
    after = Config.fromfile(path)
    set_size(after, parse_pixels(str(reference)))
    assert after.to_dict() == before.to_dict()
