"""Export of a backbone to ONNX, checked with ONNX Runtime."""

from collections.abc import Iterator
from importlib.util import find_spec

import torch
from torch import Tensor

from ..models import RoPESwin, RoPEViT

LEAST_OPSET = 18  # torch's exporter writes nothing older
TOLERANCE = 1e-4


class ExportError(ValueError):
    """A model that cannot be exported as asked. The message is the whole explanation."""


def output_names(model: RoPEViT | RoPESwin) -> list[str]:
    """Name each output by the block or stage it comes from: ``block11``, ``stage0``."""
    counted = 'block' if isinstance(model, RoPEViT) else 'stage'
    return [f'{counted}{i}' for i in model.out_indices]


def export_onnx(
    model: RoPEViT | RoPESwin,
    path: str,
    size: tuple[int, int],
    dynamic_batch: bool = False,
    dynamic_size: bool = False,
    opset: int = LEAST_OPSET,
    check: bool = True,
) -> float | None:
    """Write a backbone as one ONNX file: input ``images``, outputs as :func:`output_names`.

    Args:
        model: in eval mode.
        path: path of the file, which is replaced if it exists.
        size: image size, ``(H, W)`` in pixels.
        dynamic_batch: whether the file accepts any batch size; else 1.
        dynamic_size: whether it accepts images of any size, which needs global attention in every block.
        opset: ONNX opset version, at least 18.
        check: whether to compare the file with the model in ONNX Runtime, at several sizes and batches if dynamic.

    Returns:
        The largest difference from the model, relative to the largest output or 1; ``None`` without ``check``.

    Raises:
        ExportError: if the model cannot be exported as asked, a package is missing or ONNX Runtime gives other values.
    """
    if opset < LEAST_OPSET:
        raise ExportError(f'opset must be at least {LEAST_OPSET}, got {opset}')
    if dynamic_size and model.window_size:
        raise ExportError(
            f'dynamic_size=True needs global attention in every block, but the backbone cuts windows (window_size = '
            f'{model.window_size}), whose number and shapes depend on the size; export a file for each size'
        )
    _check_packages('onnx', 'onnxscript', *(['onnxruntime'] if check else []))
    axes = {**({0: 'batch'} if dynamic_batch else {}), **({2: 'height', 3: 'width'} if dynamic_size else {})}
    # The exporter would take a batch of 1 for a constant, and two equal sides for one dimension.
    images = _images(model, 2 if dynamic_batch else 1, size if not dynamic_size else _unequal(size, model))
    torch.onnx.export(
        model,
        (images,),
        path,
        dynamo=True,
        opset_version=opset,
        input_names=['images'],
        output_names=output_names(model),
        dynamic_shapes=(axes,),
        external_data=False,
        verbose=False,
    )
    if not check:
        return None
    worst = difference(model, path, _shapes(size, dynamic_batch, dynamic_size))
    if not worst <= TOLERANCE:
        raise ExportError(f'ONNX Runtime differs from the model by {worst:.1e}, more than {TOLERANCE:.0e}')
    return worst


@torch.no_grad()
def difference(model: RoPEViT | RoPESwin, path: str, shapes: Iterator[tuple[int, int, int]]) -> float:
    """Return the largest difference between a model and its ONNX file, relative to the largest output or 1.

    Args:
        model: in eval mode.
        path: path of the file.
        shapes: shapes ``(B, H, W)`` of random images to compare on.
    """
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=['CPUExecutionProvider'])
    worst = 0.0
    for batch, height, width in shapes:
        images = _images(model, batch, (height, width))
        theirs = session.run(output_names(model), {'images': images.numpy()})
        for ours, other in zip(model(images), map(torch.from_numpy, theirs), strict=True):
            if ours.shape != other.shape:
                raise ExportError(
                    f'ONNX Runtime gives an output of shape {tuple(other.shape)}, the model {tuple(ours.shape)}'
                )
            worst = max(worst, ((ours - other).abs().max() / max(1, ours.abs().max())).item())
    return worst


def _images(model: RoPEViT | RoPESwin, batch: int, size: tuple[int, int]) -> Tensor:
    return torch.randn(batch, model.in_channels, *size)


def _unequal(size: tuple[int, int], model: RoPEViT | RoPESwin) -> tuple[int, int]:
    """Return an example size without special cases: two different sides of at least four patches."""
    patch = model.patch_embed.patch_size[0]
    height, width = (max(side, 4 * patch) for side in size)
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
