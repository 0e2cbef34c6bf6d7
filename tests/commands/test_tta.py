"""Test-time augmentation of a config, and the one that MMDetection fills in for a detector."""

import copy
from typing import Any

import pytest
from mmdet.models import DetTTAModel
from mmengine.config import Config

from mmrope.commands.runner import CommandError
from mmrope.commands.tta import use_tta

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64)), dict(type='PackDetInputs')]


def make_config(scope: str = 'mmdet', **parts: Any) -> Config:
    model = dict(type='Model', roi_head=dict())
    dataset = dict(type='A', pipeline=copy.deepcopy(PIPELINE))
    return Config(dict(default_scope=scope, model=model, test_dataloader=dict(dataset=dataset)) | parts)


def test_augmentation_wraps_the_model_and_reaches_all_data_sets() -> None:
    inner = [dict(type='A', pipeline=[1]), dict(type='B', pipeline=[2])]
    cfg = make_config(
        scope='mmengine',
        model=dict(type='Model'),
        test_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=inner)),
        tta_model=dict(type='TTA', tta_cfg=dict(max_per_img=5)),
        tta_pipeline=[dict(type='TestTimeAug')],
    )
    use_tta(cfg)
    assert cfg.model == dict(type='TTA', tta_cfg=dict(max_per_img=5), module=dict(type='Model'))
    assert [part.pipeline for part in cfg.test_dataloader.dataset.datasets] == [[dict(type='TestTimeAug')]] * 2


def test_a_detector_without_one_is_tested_on_flipped_images_too() -> None:
    """MMDetection's own tool does the same: each image and its mirror image, in place of the step that packs them."""
    cfg = make_config()
    use_tta(cfg)
    assert cfg.model.type == 'DetTTAModel' and cfg.model.module.type == 'Model'
    assert cfg.model.tta_cfg == dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
    *before, augment = cfg.test_dataloader.dataset.pipeline
    assert before == PIPELINE[:-1]
    flips, (pack,) = augment.transforms
    assert sorted(flip.prob for flip in flips) == [0.0, 1.0] and pack.type == 'PackDetInputs'
    assert {'flip', 'flip_direction'} <= set(pack.meta_keys)


def test_a_detector_of_classes_is_one_without_a_scope() -> None:
    from mmdet.models import FasterRCNN

    cfg = make_config(model=dict(type=FasterRCNN, roi_head=dict()))
    cfg.default_scope = None
    use_tta(cfg)
    assert cfg.model.type == 'DetTTAModel'


def test_settings_of_a_detection_config_are_kept() -> None:
    cfg = make_config(tta_pipeline=[dict(type='Mine')])
    use_tta(cfg)
    assert cfg.model.type == 'DetTTAModel' and cfg.test_dataloader.dataset.pipeline == [dict(type='Mine')]
    cfg = make_config(tta_model=dict(type='MyTTA'))
    use_tta(cfg)
    assert cfg.model == dict(type='MyTTA', module=dict(type='Model', roi_head=dict()))
    assert cfg.test_dataloader.dataset.pipeline[-1].type == 'TestTimeAug'


def test_a_part_that_is_none_is_not_there() -> None:
    cfg = make_config(tta_model=None, tta_pipeline=None)
    use_tta(cfg)
    assert cfg.model.type == 'DetTTAModel' and cfg.test_dataloader.dataset.pipeline[-1].type == 'TestTimeAug'
    with pytest.raises(CommandError, match='--tta.*tta_pipeline'):
        use_tta(make_config('mmseg', tta_model=dict(type='SegTTAModel'), tta_pipeline=None))


@pytest.mark.parametrize('scope', ['mmseg', 'mmpretrain'])
def test_other_configs_must_have_one(scope: str) -> None:
    with pytest.raises(CommandError, match='--tta.*tta_model.*tta_pipeline'):
        use_tta(make_config(scope))


@pytest.mark.parametrize('path', ['model.roi_head', 'model'])
def test_masks_are_not_merged_and_the_error_says_how_to_leave_them_out(path: str) -> None:
    cfg = make_config()
    cfg.merge_from_dict({f'{path}.mask_head': dict(type='FCNMaskHead')})
    with pytest.raises(CommandError, match=rf'--tta.*{path}\.mask_head=None test_evaluator\.metric=bbox'):
        use_tta(cfg)
    cfg.tta_model = dict(type=DetTTAModel)
    with pytest.raises(CommandError, match='--tta'):
        use_tta(cfg)
    cfg.merge_from_dict({f'{path}.mask_head': None})  # as the error says
    use_tta(cfg)
