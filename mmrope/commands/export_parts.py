"""The parts of a model that export to ONNX, and what a program that runs the file needs to know."""

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config
from timm.layers import to_2tuple
from torch import Tensor, nn

from .. import __version__
from ..analysis.onnx import ClassOf
from .checks.config import datasets_of, need
from .cli import Size
from .errors import CommandError
from .hosts import scope_of, type_name
from .models import backbone_of, load_whole_model
from .prediction import metainfo_of
from .sizes import size_overrides

TASKS = {'mmseg': 'segmentation', 'mmpretrain': 'classification'}
DEFAULT = dict(interpolation='bilinear', antialias=False)
INTERPOLATIONS = {'cv2': ('bilinear', 'nearest'), 'pillow': ('bilinear', 'nearest', 'bicubic', 'lanczos', 'box')}


@dataclass(frozen=True)
class Part:
    """A part of a model to export.

    Attributes:
        module: takes images, normalised as the config's data preprocessor does it.
        outputs: names of its outputs.
        task: ``'segmentation'`` or ``'classification'`` of a whole model, ``'features'`` of its parts and of EoMT in
            MMDetection.
        meta: classes and colours of the data set.
    """

    module: nn.Module
    outputs: Sequence[str]
    task: str = 'features'
    meta: Mapping[str, Any] = field(default_factory=dict)


class Features(nn.Module):
    """The maps of the neck of a detector, a segmenter or a classifier; of the backbone, if there is none.

    Args:
        model: of a host.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps."""
        extract: Any = self.model.extract_feat
        maps = extract(images)
        return (maps,) if isinstance(maps, Tensor) else tuple(maps)


class SegmenterScores(nn.Module):
    """The scores of all classes at each pixel, as the segmenter's own ``encode_decode`` gives them.

    Args:
        model: segmenter of MMSegmentation with ``test_cfg.mode='whole'``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(B, classes, H, W)``; where the model gives one logit, its threshold comes before it."""
        model: Any = self.model
        size = images.shape[2:]
        metas = [dict(img_shape=size, pad_shape=size, ori_shape=size)]  # heads read the first one
        scores = model.encode_decode(images, metas)
        if model.out_channels == 1:
            threshold = model.decode_head.threshold
            scores = torch.cat([torch.full_like(scores, math.log(threshold / (1 - threshold))), scores], dim=1)
        return scores


class ClassifierScores(nn.Module):
    """The scores of all classes of each image, before softmax.

    Args:
        model: ``ImageClassifier`` of MMPreTrain.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(B, classes)``."""
        return self.model(images, mode='tensor')


class QueryLogits(nn.Module):
    """The last logits of a detector's queries, from which it makes instances or a panoptic map.

    Args:
        model: detector of MMDetection with ``mmrope.heads.EoMTHead``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return classes, ``(B, Q, classes + 1)``, and masks, ``(B, Q, h, w)``."""
        model: Any = self.model
        classes, masks = model.panoptic_head(model.extract_feat(images))
        return classes[-1], masks[-1]


def check_closed(backbone: nn.Module, part: str) -> None:
    """Check that a backbone runs all of its blocks itself.

    Raises:
        CommandError: if it leaves some to a head.
    """
    if number := getattr(backbone, 'open_blocks', 0):
        raise CommandError(
            f'--part {part}: the backbone leaves its last {number} blocks to the head (open_blocks); --part model '
            'exports them'
        )


def neck_part(cfg: Config, checkpoint: str) -> Part:
    """Load a model, and return its backbone and neck as a part.

    Raises:
        CheckpointError: if the checkpoint leaves a parameter of the model unset.
    """
    model, _ = load_whole_model(cfg, checkpoint)
    check_closed(backbone_of(model), 'neck')
    side = 16 * backbone_of(model).patch_embed.patch_size[0]
    with torch.no_grad():
        maps = Features(model)(torch.zeros(1, backbone_of(model).in_channels, side, side))
    return Part(Features(model).eval(), [f'level{i}' for i in range(len(maps))])


def whole_model(cfg: Config, checkpoint: str, output: str | None = None) -> Part:
    """Load a segmenter, a classifier or a detector with EoMT's head as a part.

    Args:
        cfg: its config.
        checkpoint: of the whole model.
        output: ``'classes'``, the default, or ``'scores'``; a detector has neither and gives the logits of its queries.

    Raises:
        CommandError: if the model is another detector, a segmenter that slides a window, or ``output`` is given for
            a detector.
        CheckpointError: if the checkpoint leaves a parameter unset.
    """
    scope = scope_of(cfg)
    if scope == 'mmdet' and cfg.model.backbone.get('open_blocks'):
        if output:
            raise CommandError(
                f'--output {output} is for segmenters and classifiers; a detector with EoMT gives its logits'
            )
        model, meta = load_whole_model(cfg, checkpoint)
        return Part(QueryLogits(model).eval(), ['class_logits', 'mask_logits'], meta=meta or metainfo_of(cfg))
    if scope not in TASKS:
        raise CommandError(
            f'--part model exports segmenters, classifiers and EoMT, and this config is one of {scope}, whose heads it '
            'cannot export: --part neck exports backbone and neck'
        )
    mode = (cfg.model.get('test_cfg') or {}).get('mode', 'whole')
    if mode != 'whole':
        raise CommandError(
            f"--part model exports segmenters that see whole images, and this config has model.test_cfg.mode='{mode}': "
            '--cfg-options model.test_cfg.mode=whole'
        )
    model, meta = load_whole_model(cfg, checkpoint)
    backbone_of(model)
    scores = SegmenterScores(model) if scope == 'mmseg' else ClassifierScores(model)
    output = output or 'classes'
    module = ClassOf(scores) if output == 'classes' else scores
    return Part(module.eval(), [output], TASKS[scope], meta or metainfo_of(cfg))


def describe(part: Part, cfg: Config, size: tuple[int, int] | None) -> dict[str, str]:
    """Describe what a program that runs the file needs to know, for its ``metadata_props``.

    Args:
        part: the part.
        cfg: config of the model.
        size: image size of the file, ``(H, W)``; ``None`` if it takes any.

    Returns:
        JSON texts: ``task``, ``classes``, ``palette``, ``mean``, ``std``, ``channels`` (the order of the input's
        channels) and, of a whole model, ``resize``, ``crop`` and ``pad``.

    Raises:
        CommandError: if the test pipeline of a whole model does more to an image than these say.
    """
    preprocessor = cfg.get('model', {}).get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    turned = any(preprocessor.get(key) for key in ('bgr_to_rgb', 'rgb_to_bgr', 'to_rgb'))
    described: dict[str, Any] = dict(
        task=part.task,
        mean=list(preprocessor.get('mean') or [0.0] * 3),
        std=list(preprocessor.get('std') or [1.0] * 3),
        channels='RGB' if turned else 'BGR',
        mmrope=__version__,
    )
    for key in ('classes', 'palette'):
        if part.meta.get(key) is not None:
            described[key] = [value if isinstance(value, str) else list(value) for value in part.meta[key]]
    if part.task != 'features':
        described |= image_rule(cfg, preprocessor, size)
    return {key: json.dumps(value) for key, value in described.items()}


def image_rule(cfg: Config, preprocessor: Mapping[str, Any], size: tuple[int, int] | None) -> dict[str, Any]:
    """Return how the test pipeline brings an image to its size: ``resize``, ``crop`` and ``pad``.

    Raises:
        CommandError: if it has other steps.
    """
    pipeline = next(datasets_of(need(cfg, 'test_dataloader').dataset))['pipeline']
    if size is not None and any(type_name(step) == 'CenterCrop' for step in pipeline):
        cfg = copy.deepcopy(cfg)
        cfg.merge_from_dict(size_overrides(cfg, Size('', 'exact', *size)))
        pipeline = next(datasets_of(need(cfg, 'test_dataloader').dataset))['pipeline']
    resize: dict[str, Any] | None = None
    crop: tuple[int, int] | None = None
    for step in pipeline:
        name = type_name(step)
        if name.startswith(('Load', 'Pack')):
            continue
        if name == 'CenterCrop':
            crop = to_2tuple(step['crop_size'])[::-1]
        elif name in ('Resize', 'ResizeEdge', 'ResizeShortestEdge') and resize is None and crop is None:
            resize = _resize(name, step)
        else:
            raise CommandError(f'the test pipeline has {name}, which the metadata of the file cannot describe')
    padding = preprocessor.get('test_cfg') or {}
    value = preprocessor.get('pad_val', preprocessor.get('pad_value', 0))
    divisor = padding.get('size_divisor') or preprocessor.get('pad_size_divisor', 1)
    pad: dict[str, Any] = dict(value=value, divisor=divisor)
    if padding.get('size'):
        pad['size'] = list(padding['size'])
    if size is not None and crop is None:
        resize, pad = _of_one_size(resize, pad, size)
    return dict(resize=resize, crop=crop, pad=pad)


def _of_one_size(
    resize: dict[str, Any] | None, pad: dict[str, Any], size: tuple[int, int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return how an image comes to the one size of a file: stretched if the config does so, else padded."""
    sides = dict(height=size[0], width=size[1]) if resize and 'height' in resize else dict(within=list(size))
    how = {key: resize[key] for key in ('interpolation', 'antialias')} if resize else DEFAULT
    return sides | how, dict(value=pad['value'], divisor=1, size=list(size))


def _resize(name: str, step: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a step that resizes."""
    backend, interpolation = step.get('backend', 'cv2'), step.get('interpolation', 'bilinear')
    if interpolation not in INTERPOLATIONS.get(backend, ()):
        raise CommandError(f'{name} has backend={backend} and interpolation={interpolation}, which cannot be described')
    how = dict(interpolation=interpolation, antialias=backend == 'pillow')
    if name == 'ResizeEdge' and step.get('edge', 'short') == 'short':
        return dict(shorter=step['scale'], longer=None, floor=True) | how
    if name == 'ResizeShortestEdge':
        return dict(shorter=step['scale'], longer=step['max_size'], floor=False) | how
    if name == 'Resize' and step.get('scale'):
        width, height = to_2tuple(step['scale'])
        if not step.get('keep_ratio'):
            return dict(height=height, width=width) | how
        return dict(shorter=min(width, height), longer=max(width, height), floor=False) | how
    raise CommandError(f'the test pipeline has {dict(step)}, which cannot be described')
