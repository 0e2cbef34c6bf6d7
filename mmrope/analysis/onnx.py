"""Export of a model to ONNX, checked with ONNX Runtime."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from ..models import RoPESwin, RoPEViT

LEAST_OPSET = 18  # torch's exporter writes nothing older
TOLERANCE = 1e-4


class ExportError(ValueError):
    """A model that cannot be exported as asked. The message is the whole explanation."""


class ClassOf(nn.Module):
    """The class of the highest score, along dimension 1.

    Args:
        scores: model that gives the scores of the classes, ``(B, classes, ...)``.
    """

    def __init__(self, scores: nn.Module) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, images: Tensor) -> Tensor:
        """Return the classes as int32."""
        return self.scores(images).argmax(dim=1).to(torch.int32)


def output_names(model: RoPEViT | RoPESwin) -> list[str]:
    """Name each output of a backbone by the block or stage it comes from: ``block11``, ``stage0``."""
    counted = 'block' if isinstance(model, RoPEViT) else 'stage'
    return [f'{counted}{i}' for i in model.out_indices]


def export_onnx(
    model: nn.Module,
    path: str,
    size: tuple[int, int],
    dynamic_batch: bool = False,
    dynamic_size: bool = False,
    opset: int = LEAST_OPSET,
    check: bool = True,
    outputs: Sequence[str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> float | None:
    """Write a model as one ONNX file: input ``images``, one output for each name.

    Args:
        model: in eval mode; a backbone, or a module around one that takes images alone.
        path: path of the file, which is replaced if it exists.
        size: image size, ``(H, W)`` in pixels.
        dynamic_batch: whether the file accepts any batch size; else 1.
        dynamic_size: whether it accepts images of any size, which needs global attention in every block.
        opset: ONNX opset version, at least 18.
        check: whether to compare the file with the model in ONNX Runtime, at several sizes and batches if dynamic.
        outputs: names of the outputs; those of :func:`output_names` by default.
        metadata: texts for the file's ``metadata_props``.

    Returns:
        The largest difference from the model, relative to the largest output or 1; ``None`` without ``check``.

    Raises:
        ExportError: if the model cannot be exported as asked, a package is missing or ONNX Runtime gives other values.
    """
    backbone = next(part for part in model.modules() if isinstance(part, (RoPEViT, RoPESwin)))
    if opset < LEAST_OPSET:
        raise ExportError(f'opset must be at least {LEAST_OPSET}, got {opset}')
    if dynamic_size and backbone.window_size:
        raise ExportError(
            f'dynamic_size=True needs global attention in every block, but the backbone cuts windows (window_size = '
            f'{backbone.window_size}), whose number and shapes depend on the size; export a file for each size'
        )
    _check_packages('onnx', 'onnxscript', *(['onnxruntime'] if check else []))
    axes = {**({0: 'batch'} if dynamic_batch else {}), **({2: 'height', 3: 'width'} if dynamic_size else {})}
    # The exporter would take a batch of 1 for a constant, and two equal sides for one dimension.
    example = _unequal(size, backbone) if dynamic_size else size
    program = torch.onnx.export(
        _with_plain_pooling(model),
        (_images(backbone, 2 if dynamic_batch else 1, example),),
        dynamo=True,
        opset_version=opset,
        input_names=['images'],
        output_names=list(outputs or output_names(backbone)),
        dynamic_shapes=(axes,),
        verbose=False,
    )
    assert program is not None  # with dynamo=True
    program.model.metadata_props.update(metadata or {})
    program.save(path, external_data=False)
    if not check:
        return None
    worst = difference(model, path, _shapes(size, dynamic_batch, dynamic_size), backbone.in_channels)
    if not worst <= TOLERANCE:
        raise ExportError(f'ONNX Runtime differs from the model by {worst:.1e}, more than {TOLERANCE:.0e}')
    return worst


def difference(model: nn.Module, path: str, shapes: Iterator[tuple[int, int, int]], in_channels: int = 3) -> float:
    """Return the largest difference between a model and its ONNX file, relative to the largest output or 1.

    Args:
        model: in eval mode.
        path: path of the file.
        shapes: shapes ``(B, H, W)`` of random images to compare on.
        in_channels: channels of the images.
    """
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=['CPUExecutionProvider'])
    return max(gap(model, torch.randn(batch, in_channels, *size), session) for batch, *size in shapes)


@torch.no_grad()
def gap(model: nn.Module, images: Tensor, session: Any) -> float:
    """Return the difference between a model and an ONNX Runtime session on some images.

    Of classes, this is how much lower the session's class scores than the model's: two scores that are nearly equal may
    change places.
    """
    theirs = [torch.from_numpy(output) for output in session.run(None, {'images': images.numpy()})]
    if isinstance(model, ClassOf):
        scores = model.scores(images)
        _check_shape(scores[:, 0], theirs[0])
        found = scores.gather(1, theirs[0].long().unsqueeze(1)).squeeze(1)
        return ((scores.amax(1) - found).max() / max(1, scores.abs().max())).item()
    ours = model(images)
    worst = 0.0
    for one, other in zip([ours] if isinstance(ours, Tensor) else ours, theirs, strict=True):
        _check_shape(one, other)
        worst = max(worst, ((one - other).abs().max() / max(1, one.abs().max())).item())
    return worst


def _check_shape(ours: Tensor, theirs: Tensor) -> None:
    if ours.shape != theirs.shape:
        raise ExportError(f'ONNX Runtime gives an output of shape {tuple(theirs.shape)}, the model {tuple(ours.shape)}')


class _PoolingByMatrices(nn.Module):
    """``AdaptiveAvgPool2d`` as two products with matrices of weights, which exports for images of any size."""

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size if isinstance(output_size, tuple) else (output_size, output_size)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (_bins(cells, side, x) for cells, side in zip(self.output_size, x.shape[2:]))
        return rows @ x @ columns.transpose(0, 1)


def _bins(cells: int, side: int, like: Tensor) -> Tensor:
    """Return the weight ``(cells, side)`` of each place in each cell; cells overlap where they do not divide a side."""
    places = torch.arange(side, device=like.device)
    starts = torch.arange(cells, device=like.device).unsqueeze(1) * side
    inside = (places >= starts // cells) & (places < (starts + side + cells - 1) // cells)
    weights = inside.to(like.dtype)
    return weights / weights.sum(1, keepdim=True)


def _with_plain_pooling(model: nn.Module) -> nn.Module:
    """Return a copy of a model without adaptive pooling to several cells, which torch exports for one size only.

    This function can go once ``torch.onnx.export`` takes such pooling of dynamic sizes; in PyTorch 2.11 it does not.
    """
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size not in (1, (1, 1)):
                setattr(module, name, _PoolingByMatrices(child.output_size))
    return model


def _images(model: RoPEViT | RoPESwin, batch: int, size: tuple[int, int]) -> Tensor:
    return torch.randn(batch, model.in_channels, *size)


def _unequal(size: tuple[int, int], model: RoPEViT | RoPESwin) -> tuple[int, int]:
    """Return an example size without special cases: two different sides of at least eight patches."""
    patch = model.patch_embed.patch_size[0]
    height, width = (max(side, 8 * patch) for side in size)
    return (height, width + patch) if height == width else (height, width)


def _shapes(size: tuple[int, int], dynamic_batch: bool, dynamic_size: bool) -> Iterator[tuple[int, int, int]]:
    """Yield batch and image sizes to compare at, portrait and landscape, most of them no multiple of the patch."""
    height, width = size
    sizes = [(height, width)]
    if dynamic_size:
        sizes += [(height // 2 + 5, width + 3), (height, width // 3 + 1)]
    for i, (height, width) in enumerate(sizes):
        yield (i % 2 + 1 if dynamic_batch else 1), height, width
    if dynamic_batch:
        yield 3, *size


def _check_packages(*names: str) -> None:
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ExportError(f"{' and '.join(missing)} not installed; pip install 'mmrope[onnx]'")
