"""Hooks that give a published model the names of ours, and check that a checkpoint holds every parameter to test."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..checkpoints.sources import CheckpointError
from ..text import few
from ..weights.classifier import classifier_state_dict, is_image_classifier, is_published_classifier
from ..weights.eomt import eomt_name, eomt_state_dict, is_published_eomt
from ..weights.unwrapping import remove_wrappers


class PublishedWeights(Hook):
    """Hook that lets a training start from a published model, such as an EoMT of its authors, with ``load_from``.

    Args:
        source: name of the checkpoint in errors.
    """

    priority = 'VERY_HIGH'  # before hooks that read the checkpoint

    def __init__(self, source: str) -> None:
        self.source = source

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Rename the weights to the model's names.

        Raises:
            WeightsError: if the checkpoint holds no weights for this backbone.
        """
        use_own_names(unwrapped(runner.model), checkpoint, self.source)


class CompleteCheckpoint(Hook):
    """Hook that refuses to test a model with random parameters; MMEngine's runner only logs them.

    A model around a backbone of mmrope also takes the checkpoint of a published one: an ``ImageClassifier`` a
    classifier, a model with an EoMT an EoMT.

    Args:
        source: name of the checkpoint in errors.
    """

    priority = 'VERY_HIGH'  # before hooks that read the checkpoint, and before the run counts as started

    def __init__(self, source: str) -> None:
        self.source = source
        self.versions: dict[str, int] = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Rename the weights to the model's names, and note the version of each parameter before loading.

        Raises:
            WeightsError: if the checkpoint holds no weights for this backbone.
        """
        self.note(unwrapped(runner.model), checkpoint)

    def before_test(self, runner: Runner) -> None:
        """Check that all parameters have been set.

        Raises:
            CheckpointError: if some have not been set.
        """
        self.check(unwrapped(runner.model))

    def note(self, model: nn.Module, checkpoint: dict[str, Any]) -> None:
        """Do as ``after_load_checkpoint``, for a model without a runner."""
        use_own_names(model, checkpoint, self.source)
        # PyTorch counts the changes of a tensor, which tells the parameters that were set, whatever a model does to
        # names and shapes while it loads.
        self.versions = {name: param._version for name, param in model.named_parameters()}

    def check(self, model: nn.Module) -> None:
        """Do as ``before_test``, for a model without a runner."""
        params = dict(model.named_parameters())
        unset = [name for name, version in self.versions.items() if params[name]._version == version]
        if unset:
            raise CheckpointError(
                f'{self.source} does not fit the model of the config: weights are missing, or have another shape, for '
                f'{len(unset)} of {len(params)} parameters: {few(unset)}'
            )


def use_own_names(model: nn.Module, checkpoint: dict[str, Any], source: str) -> None:
    """Rename the weights of a checkpoint, in place, to those of a model: of a published one, and of wrappers.

    Raises:
        WeightsError: if the checkpoint holds no weights for this backbone.
    """
    if is_image_classifier(model) and is_published_classifier(checkpoint):
        checkpoint['state_dict'] = classifier_state_dict(model, checkpoint, source)
    elif eomt_name(model) and is_published_eomt(checkpoint):
        checkpoint['state_dict'] = eomt_state_dict(model, checkpoint, source)
    remove_wrappers(checkpoint.get('state_dict', checkpoint), model)


def unwrapped(model: Any) -> Any:
    """Return the model without wrappers for distributed training or test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
