"""Runs of CUDA's code paths on a machine without a GPU: fake tensors on ``cuda``, forward and backward.

Nothing is computed, so there are no values and no times of kernels; the runs tell which operators are called, on which
shapes, dtypes and devices. Without a GPU, PyTorch 2.11 needs help in three places:

* ``torch.autocast('cuda')`` switches itself off: :func:`autocast_of_a_gpu` tells it that there is one.
* ``F.scaled_dot_product_attention`` asks the GPU for a kernel: :class:`FusedAttention` calls the operator that an H100
  would use.
* ``backward()`` raises in the C++ engine: :func:`backward` calls the nodes of the graph from Python.
"""

import collections
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

aten = torch.ops.aten
HALF = (torch.float16, torch.bfloat16)
Record = Callable[[Any, tuple, dict, Any], None]


@contextmanager
def autocast_of_a_gpu() -> Iterator[None]:
    """Enable ``torch.autocast('cuda')`` without a GPU, also while a checkpoint is recomputed."""
    with (
        mock.patch('torch.cuda.amp.common.amp_definitely_not_available', lambda: False),
        mock.patch('torch.cuda.is_bf16_supported', lambda: True),
    ):
        yield


class FusedAttention(TorchFunctionMode):
    """Mode that calls flash attention in half precision without a mask, and memory-efficient attention otherwise."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        q, k, v = args[:3]
        if torch.is_autocast_enabled('cuda'):
            q, k, v = (x.to(torch.get_autocast_dtype('cuda')) for x in (q, k, v))
        mask = kwargs.get('attn_mask')
        if mask is None and q.dtype in HALF:
            return aten._scaled_dot_product_flash_attention(q, k, v)[0]
        if mask is not None:
            mask = mask.to(q.dtype).expand(len(q), q.shape[1], q.shape[2], k.shape[2])
            padding = -mask.shape[-1] % 16  # as PyTorch aligns it
            mask = F.pad(mask, (0, padding))[..., : mask.shape[-1]] if padding else mask
        grad = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
        return aten._scaled_dot_product_efficient_attention(q, k, v, mask, grad)[0]


def backward(root: Tensor) -> None:
    """Do what ``root.backward()`` does, node by node from Python, the latest node first."""
    waits, seen, stack = collections.Counter(), {root.grad_fn}, [root.grad_fn]
    while stack:
        for child, _ in stack.pop().next_functions:
            if child is not None:
                waits[child] += 1
                if child not in seen:
                    seen.add(child)
                    stack.append(child)
    given = collections.defaultdict(dict, {root.grad_fn: {root.output_nr: torch.ones_like(root)}})
    ready = [root.grad_fn]
    with torch.no_grad():
        while ready:
            node = max(ready, key=lambda node: node._sequence_nr())
            ready.remove(node)
            inputs = given.pop(node, {})
            for (child, number), out in zip(node.next_functions, _call(node, inputs)):
                if child is None:
                    continue
                if out is not None:
                    _hand_on(given[child], child, number, out)
                waits[child] -= 1
                if not waits[child]:
                    ready.append(child)


def _call(node: Any, inputs: dict[int, Tensor]) -> tuple[Tensor | None, ...]:
    if node.name() == 'torch::autograd::AccumulateGrad':
        if 0 in inputs:
            variable, grad = node.variable, inputs[0]
            assert grad.dtype == variable.dtype and grad.shape == variable.shape, (grad, variable)
            variable.grad = grad if variable.grad is None else variable.grad + grad
        return ()
    if not inputs:
        return (None,) * len(node.next_functions)
    arguments = [inputs.get(i) for i in range(len(node._input_metadata))]
    in_python = 'Backward' in type(node).__name__ and not node.name().startswith('torch::') and hasattr(node, 'apply')
    outs = node.apply(*arguments) if in_python and hasattr(node, 'saved_tensors') else node(*arguments)
    return outs if isinstance(outs, tuple) else (outs,)


def _hand_on(given: dict[int, Tensor], child: Any, number: int, out: Tensor) -> None:
    wanted = child._input_metadata[number]
    assert out.device == wanted.device, (child.name(), out.device, wanted.device)
    out = out if tuple(out.shape) == tuple(wanted.shape) else out.sum_to_size(tuple(wanted.shape))
    out = out.to(wanted.dtype)
    given[number] = given[number] + out if number in given else out


class Watch(TorchDispatchMode):
    """Mode that hands every operator to a function and lists copies between devices, which stall a GPU's queue."""

    def __init__(self, record: Record | None = None) -> None:
        super().__init__()
        self.record, self.crossings = record, []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_flatten((args, kwargs, out))[0] if isinstance(x, Tensor)]
        if len({x.device.type for x in tensors if x.ndim or x.is_cuda}) > 1 or 'local_scalar' in str(func):
            self.crossings.append(str(func))
        if self.record is not None:
            self.record(func, args, kwargs or {}, out)
        return out


def step(model: nn.Module, x: Tensor, dtype: torch.dtype | None, training: bool, record: Record | None = None) -> Watch:
    """Run a forward, and a backward if ``training``, under autocast to ``dtype`` unless that is ``None``."""
    watch = Watch(record)
    with FusedAttention(), watch, autocast_of_a_gpu():
        with torch.set_grad_enabled(training), torch.autocast('cuda', dtype, enabled=dtype is not None):
            outs = model(x)
        if training:
            backward(sum(out.float().mean() for out in outs))
    return watch


def run(
    build: Callable[[], nn.Module],
    shape: tuple[int, ...],
    dtype: torch.dtype | None = torch.bfloat16,
    training: bool = True,
    record: Record | None = None,
) -> tuple[nn.Module, Watch]:
    """Build a model on fake CUDA and run two steps; return it with its gradients and the watch over the second.

    The first step makes the indexes that are made once for an image size.
    """
    with FakeTensorMode():
        with torch.device('cuda'):
            model = build().train(training)
        x = torch.empty(shape, device='cuda')
        step(model, x, dtype, training)
        model.zero_grad()
        return model, step(model, x, dtype, training, record)
