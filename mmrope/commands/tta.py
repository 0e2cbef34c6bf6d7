"""Test-time augmentation, by the config or by MMDetection's default."""

import copy
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

from .checks.config import datasets_of
from .errors import CommandError
from .hosts import scope_of, type_name

FLIPS = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
PACKED = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
DETECTOR = dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))


def use_tta(cfg: Config) -> None:
    """Test with the augmentation of the config.

    A detection config without one is tested on each image and its mirror image, merged by NMS, as in MMDetection.

    Raises:
        CommandError: if another config has none, or the model predicts masks, which MMDetection does not merge.
    """
    detects = scope_of(cfg) == 'mmdet'
    missing = [key for key in ('tta_model', 'tta_pipeline') if not cfg.get(key)]
    if missing and not detects:
        raise CommandError(f'--tta: the config has no {" and no ".join(missing)}')
    merger = cfg.get('tta_model') or DETECTOR
    if detects and type_name(merger) == 'DetTTAModel':
        _refuse_masks(cfg)
    for dataset in datasets_of(cfg.test_dataloader.dataset):
        dataset['pipeline'] = cfg.get('tta_pipeline') or flipped(dataset['pipeline'])
    cfg.model = ConfigDict(**copy.deepcopy(merger), module=cfg.model)


def flipped(pipeline: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a pipeline of MMDetection whose last step packs each image twice, flipped and unflipped."""
    pack = dict(type='PackDetInputs', meta_keys=PACKED)
    return [*pipeline[:-1], dict(type='TestTimeAug', transforms=[copy.deepcopy(FLIPS), [pack]])]


def _refuse_masks(cfg: Config) -> None:
    for path, part in (('model.roi_head', cfg.model.get('roi_head')), ('model', cfg.model)):
        if part and part.get('mask_head'):
            raise CommandError(
                f'--tta merges boxes only, and {path}.mask_head predicts masks: test the boxes alone with '
                f'--cfg-options {path}.mask_head=None test_evaluator.metric=bbox'
            )
