"""A compiled backbone as an option of a config."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..registry import HOOKS
from .complete_checkpoint_hook import unwrapped


@HOOKS.register_module()
class CompileBackboneHook(Hook):
    """Hook that compiles ``model.backbone`` with ``torch.compile``; neck, heads and losses run as they are.

    MMEngine's own ``compile`` of a config compiles the whole training step, data preparation and all, which detectors
    and segmentors do not get through. Windows are compiled once for each image size: see that there are few, or raise
    ``torch._dynamo.config.recompile_limit``.

    Args:
        options: what ``torch.nn.Module.compile`` takes, ``mode='max-autotune'`` say.
    """

    priority = 'VERY_LOW'  # after the hooks that copy the model

    def __init__(self, **options: Any) -> None:
        self.options = options

    def before_run(self, runner: Runner) -> None:
        """Compile what a call of the backbone does; the module and the names in its checkpoints stay.

        Raises:
            AttributeError: if the model has no backbone.
        """
        unwrapped(runner.model).backbone.compile(**self.options)
