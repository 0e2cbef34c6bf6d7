"""A hook that stops a training when its losses or weights are no longer finite."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from ..registry import HOOKS
from ..text import few
from .complete_checkpoint_hook import unwrapped


class NonFiniteError(FloatingPointError):
    """NaN or infinity in a training. The message is the whole explanation."""


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Hook that stops a training whose loss is NaN or infinite, before the optimiser uses it.

    The loss is checked as soon as the model returns it, so the weights are still those of the previous iteration, and
    the gradients of this loss tell which parameters are concerned. Weights and buffers are checked before a checkpoint
    is written and replaces an older one.

    Args:
        interval: iterations between two checks of the loss. A check waits for the forward pass; MMEngine waits for the
            whole iteration anyway, to log its losses.

    Raises:
        NonFiniteError: with the iteration, the losses, the parameters concerned and the last checkpoint.
    """

    priority = 'NORMAL'  # before the hook that writes checkpoints

    def __init__(self, interval: int = 1) -> None:
        if interval < 1:
            raise ValueError(f'interval must be at least 1, got {interval}')
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        """Watch what the model returns; buffers that are infinite from the start, such as masks, may stay so."""
        model = unwrapped(runner.model)
        self._infinite = set(_not_finite(dict(model.named_buffers())))
        self._handle = model.register_forward_hook(partial(self._look, runner), with_kwargs=True)

    def after_train(self, runner: Runner) -> None:
        """Stop watching."""
        self._handle.remove()

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Check the weights before a checkpoint of an iteration is saved."""
        savers = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and not hook.by_epoch]
        if any(self._saves_now(runner, hook) for hook in savers):
            self._check_weights(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Check the weights at the end of an epoch."""
        self._check_weights(runner, runner.iter)

    @staticmethod
    def _saves_now(runner: Runner, hook: CheckpointHook) -> bool:
        return hook.every_n_train_iters(runner, hook.interval, hook.save_begin) or hook.is_last_train_iter(runner)

    def _check_weights(self, runner: Runner, iteration: int) -> None:
        state = unwrapped(runner.model).state_dict()
        names = _not_finite({name: value for name, value in state.items() if name not in self._infinite})
        if names:
            raise NonFiniteError(
                f'weights or buffers are NaN or infinite after iteration {iteration}, so no checkpoint is written: '
                f'{few(names)}; {_last_checkpoint(runner)}'
            )

    def _look(self, runner: Runner, model: nn.Module, args: tuple, kwargs: dict, losses: Any) -> None:
        """Check the return value of a forward pass; only the losses of a training are a dict."""
        if not model.training or not isinstance(losses, Mapping) or not self.every_n_train_iters(runner, self.interval):
            return
        losses = {name: _mean(value) for name, value in losses.items() if 'loss' in name}
        total = sum(losses.values())
        if not isinstance(total, Tensor) or torch.isfinite(total):
            return
        values = ', '.join(f'{name} = {loss.item():.4g}' for name, loss in losses.items())
        raise NonFiniteError(
            f'the loss of iteration {runner.iter + 1} is NaN or infinite: {values}; {_concerned(model, total)}'
            f'{_images(kwargs)}; {_last_checkpoint(runner)}'
        )


def _concerned(model: nn.Module, total: Tensor) -> str:
    """Name the parameters that are not finite or, if all are, those whose gradient is not."""
    params = {name: param for name, param in model.named_parameters() if param.requires_grad}
    names = _not_finite(params)
    if names:
        return f'weights were NaN or infinite before it: {few(names)}'
    grads = torch.autograd.grad(total, list(params.values()), allow_unused=True) if total.requires_grad else ()
    names = _not_finite({name: grad for name, grad in zip(params, grads) if grad is not None})
    return f'all weights are finite; gradients that are not: {few(names) or "none"}'


def _images(kwargs: Mapping[str, Any]) -> str:
    """Name the images of the batch, and whether their pixels are finite, if the host tells."""
    inputs, samples = kwargs.get('inputs'), kwargs.get('data_samples')
    bad = isinstance(inputs, Tensor) and not torch.isfinite(inputs).all()
    given = [getattr(sample, 'img_path', None) for sample in samples] if isinstance(samples, Sequence) else []
    paths = [str(path) for path in given if path is not None]
    return f'; {"pixels are NaN or infinite in" if bad else "images:"} {few(paths)}' if bad or paths else ''


def _last_checkpoint(runner: Runner) -> str:
    info = runner.message_hub.runtime_info
    return f'the last checkpoint is {info["last_ckpt"]}' if 'last_ckpt' in info else 'there is no checkpoint yet'


def _not_finite(tensors: Mapping[str, Any]) -> list[str]:
    """List the names of the tensors that hold NaN or infinity, with one wait for the device."""
    tensors = {name: x for name, x in tensors.items() if isinstance(x, Tensor) and x.is_floating_point()}
    if not tensors:
        return []
    finite = torch.stack([x.isfinite().all() for x in tensors.values()]).tolist()
    return [name for name, good in zip(tensors, finite) if not good]


def _mean(loss: Tensor | Sequence[Tensor]) -> Tensor:
    """Return a loss as MMEngine adds it to the others."""
    return loss.mean() if isinstance(loss, Tensor) else cast(Tensor, sum(part.mean() for part in loss))
