"""Models in eval mode from configs and checkpoints, and network inputs from image files."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint_to_model
from torch import Tensor, nn

from ..engine.complete_checkpoint_hook import CompleteCheckpoint
from ..models import RoPESwin, RoPEViT
from ..weights import load_pretrained
from .checks.config import check_checkpoint, datasets_of, need
from .errors import CommandError
from .hosts import scope_of, type_name


def build_model(cfg: Config, device: str | None = None) -> nn.Module:
    """Build the model of a config, with random weights, in eval mode.

    Args:
        cfg: config of a detector, a segmenter or a classifier.
        device: torch device; ``None`` for a GPU if there is one, else the CPU.
    """
    model_cfg = dict(need(cfg, 'model'))
    model_cfg.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    with DefaultScope.overwrite_default_scope(scope_of(cfg) or 'mmengine'):
        model = revert_sync_batchnorm(MODELS.build(model_cfg)).eval()
    return model.to(device or ('cuda' if torch.cuda.is_available() else 'cpu'))


def load_model(cfg: Config, checkpoint: str, device: str | None = None) -> nn.Module:
    """Build the model of a config and load its backbone, and nothing else, from a checkpoint.

    Args:
        cfg: config of a detector, a segmenter or a classifier with a backbone of mmrope.
        checkpoint: of the whole model or the backbone alone, by any name that ``init_cfg`` takes.
        device: as in :func:`build_model`.

    Raises:
        CommandError: if there is no such checkpoint, or the backbone is not mmrope's.
        CheckpointError: as :func:`mmrope.weights.load_pretrained`.
    """
    check_checkpoint(checkpoint, 'CHECKPOINT')
    model = build_model(cfg, device)
    load_pretrained(backbone_of(model), checkpoint)
    return model


@contextmanager
def checked(complete: CompleteCheckpoint, model: nn.Module) -> Iterator[None]:
    """Check weights that are loaded; what MMEngine prints of each mismatch is shown only if none is missing.

    Raises:
        CheckpointError: if the checkpoint leaves a parameter unset.
    """
    with redirect_stdout(io.StringIO()) as printed:
        yield
    complete.check(model)
    print(printed.getvalue(), end='')


def load_whole_model(cfg: Config, checkpoint: str) -> tuple[nn.Module, dict[str, Any]]:
    """Build the model of a config on the CPU and load all of it from a checkpoint.

    Returns:
        The model in eval mode, and the ``dataset_meta`` of the checkpoint; empty if it has none.

    Raises:
        CheckpointError: if the checkpoint leaves a parameter unset.
    """
    model = build_model(cfg, 'cpu')
    loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    complete = CompleteCheckpoint(checkpoint)
    complete.note(model, loaded)
    with checked(complete, model):
        _load_checkpoint_to_model(model, loaded)
    return model, (loaded.get('meta') or {}).get('dataset_meta') or {}


def backbone_of(model: nn.Module) -> RoPEViT | RoPESwin:
    """Return the backbone of a model.

    Raises:
        CommandError: if it is not mmrope's.
    """
    return check_backbone(getattr(model, 'backbone', None))


def check_backbone(backbone: nn.Module | None) -> RoPEViT | RoPESwin:
    """Return a backbone if it is mmrope's.

    Raises:
        CommandError: if it is not.
    """
    if not isinstance(backbone, (RoPEViT, RoPESwin)):
        raise CommandError(f'model.backbone must be mmrope.RoPEViT or mmrope.RoPESwin, got {type(backbone).__name__}')
    return backbone


def head_of(model: nn.Module) -> nn.Module | None:
    """Return the head that runs the open blocks of a backbone, if the model has one of its kind."""
    return getattr(model, 'decode_head', None) or getattr(model, 'panoptic_head', None)


def backbone_config(cfg: Config) -> dict[str, Any]:
    """Return the part of a config that builds its backbone, with the ``_scope_`` of its library.

    Raises:
        CommandError: if the config has none.
    """
    model = cfg.get('model', cfg)
    for _ in range(2):  # a wrapper, such as mmdet's batch fixer, holds the model
        if 'backbone' in model:
            backbone = _plain(model['backbone'])
            kind = backbone.get('type')
            named = isinstance(kind, str) and '.' in kind
            return {'_scope_': kind.partition('.')[0] if named else scope_of(cfg) or 'mmrope'} | backbone
        model = model.get('model', {})
    raise CommandError(f'{cfg.filename}: the config has no model.backbone')


def _plain(node: Any) -> Any:
    """Turn a part of a config into plain dicts and lists; unlike ``Config.to_dict``, keep classes."""
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.items()}
    return type(node)(map(_plain, node)) if isinstance(node, (list, tuple)) else node


def prepare_image(cfg: Config, model: nn.Module, path: str) -> Tensor:
    """Read an image as a test does, with the test pipeline, normalisation and padding of the config.

    Returns:
        The network's input, ``(1, 3, H, W)``.

    Raises:
        CommandError: if the pipeline makes several images of one.
    """
    dataset = next(datasets_of(need(cfg, 'test_dataloader').dataset))
    steps = [step for step in dataset['pipeline'] if not _loads_annotations(step)]
    with DefaultScope.overwrite_default_scope(scope_of(cfg) or 'mmengine'):
        data = Compose([TRANSFORMS.build(step) for step in steps])(dict(img_path=path, img_id=0))
    inputs = _preprocess(model, data)['inputs']
    if not isinstance(inputs, Tensor) or inputs.ndim != 4:
        raise CommandError('the test pipeline must give one image, without test-time augmentation')
    return inputs


def blank_batch(cfg: Config, model: nn.Module, size: tuple[int, int]) -> dict[str, Any]:
    """Make the arguments of ``forward`` for a grey ``(H, W)`` image, packed by the last step of the test pipeline."""
    image = torch.full((*size, 3), 127, dtype=torch.uint8).numpy()
    meta = dict(img_path='', img_id=0, img_shape=size, ori_shape=size, pad_shape=size, scale_factor=(1.0, 1.0))
    dataset = next(datasets_of(need(cfg, 'test_dataloader').dataset))
    with DefaultScope.overwrite_default_scope(scope_of(cfg) or 'mmengine'):
        data = TRANSFORMS.build(dataset['pipeline'][-1])(dict(img=image, **meta))
    return _preprocess(model, data)


def _preprocess(model: nn.Module, data: dict[str, Any]) -> dict[str, Any]:
    preprocessor: Any = model.data_preprocessor
    return preprocessor(pseudo_collate([data]), False)


def _loads_annotations(step: dict[str, Any]) -> bool:
    name = type_name(step)
    return name.startswith('Load') and name.endswith('Annotations')
