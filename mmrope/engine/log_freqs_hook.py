"""A hook that logs the learned frequencies."""

from typing import Any

import torch
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner
from torch import Tensor, nn

from ..layers import RoPE
from ..registry import HOOKS
from .complete_checkpoint_hook import unwrapped


@HOOKS.register_module()
class LogFreqsHook(Hook):
    """Hook that logs the learned frequencies with the losses, where a drift shows before the loss rises.

    The values are over all blocks: ``freqs_norm``, ``freqs_max`` (the largest, in radians per token step) and
    ``freqs_grad``, the norm of the gradient in this process, before clipping.
    """

    def before_train(self, runner: Runner) -> None:
        """Find the learned frequencies and the log interval."""
        ropes = (module for module in unwrapped(runner.model).modules() if isinstance(module, RoPE))
        self.learned = [rope.freqs for rope in ropes if isinstance(rope.freqs, nn.Parameter)]
        self.interval = next((hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), 50)
        self._handles: list = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep the gradients of an iteration that is logged."""
        if not (self.every_n_train_iters(runner, self.interval) or self.every_n_inner_iters(batch_idx, self.interval)):
            return
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        self._scale = scaler.get_scale() if scaler else 1.0
        self._grads: list[Tensor] = []
        for freqs in self.learned:
            if freqs.requires_grad:
                self._handles.append(freqs.register_hook(lambda grad: self._grads.append(grad.norm())))

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Log the frequencies and their gradients."""
        if not self._handles:
            return
        while self._handles:
            self._handles.pop().remove()
        learned = [freqs.detach() for freqs in self.learned if freqs.requires_grad]
        scalars = {
            'freqs_norm': torch.stack([freqs.norm() for freqs in learned]).norm().item(),
            'freqs_max': torch.stack([freqs.abs().max() for freqs in learned]).max().item(),
        }
        if self._grads:
            scalars['freqs_grad'] = torch.stack(self._grads).norm().item() / self._scale
        for name, value in scalars.items():
            runner.message_hub.update_scalar(f'train/{name}', value)
