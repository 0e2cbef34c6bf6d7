"""A hook that compiles the backbone."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..registry import HOOKS
from .complete_checkpoint_hook import unwrapped


@HOOKS.register_module()
class CompileBackboneHook(Hook):
    """Hook that compiles ``model.backbone`` with ``torch.compile``; neck, heads and losses run as they are.

    MMEngine's own ``compile`` option compiles the whole training step, data preparation included, and fails on
    detectors and segmenters. A backbone with windows is compiled anew for each image size: use few sizes, or raise
    ``torch._dynamo.config.recompile_limit``. Open blocks run as they are, with the head that calls them.

    Args:
        options: arguments of ``torch.nn.Module.compile``, such as ``mode='max-autotune'``.
    """

    priority = 'VERY_LOW'  # after the hooks that copy the model

    def __init__(self, **options: Any) -> None:
        self.options = options

    def before_run(self, runner: Runner) -> None:
        """Compile the backbone in place; the module and the names in its checkpoints stay.

        Raises:
            AttributeError: if the model has no backbone.
        """
        unwrapped(runner.model).backbone.compile(**self.options)
