"""A test wants every parameter of its model from the checkpoint, under whatever name the model itself knows it."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.model import BaseTTAModel
from mmengine.runner.checkpoint import load_state_dict
from torch import Tensor, nn

from mmrope import RoPEViT
from mmrope.checkpoints.sources import CheckpointError
from mmrope.engine.complete_checkpoint_hook import CompleteCheckpoint


class Renaming(nn.Linear):
    """Takes its weight under an older name, as some heads of the hosts do."""

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *args: Any) -> None:
        if f'{prefix}kernel' in state:
            state[f'{prefix}weight'] = state.pop(f'{prefix}kernel')
        super()._load_from_state_dict(state, prefix, *args)


class Classifier(nn.Module):
    """MMPreTrain's ``ImageClassifier``, as far as mmrope knows it."""

    def __init__(self) -> None:
        super().__init__()
        arch = dict(embed_dims=64, depth=1, num_heads=1)
        self.backbone = RoPEViT(arch, with_cls_token=True, final_norm=True, out_type='cls_token')
        self.head = nn.Module()
        self.head.fc = nn.Linear(64, 10)

    def test_step(self, data: dict) -> None: ...


class Augmented(BaseTTAModel):
    def merge_preds(self, data_samples_list: list) -> None: ...


def check(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load and check a checkpoint as the runner does before a test."""
    runner, hook = SimpleNamespace(model=model), CompleteCheckpoint('a.pth')
    checkpoint = {'state_dict': state}
    hook.after_load_checkpoint(runner, checkpoint)
    load_state_dict(model, checkpoint['state_dict'])
    hook.before_test(runner)


def make_model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), Renaming(4, 2, bias=False))


def test_the_models_own_weights_are_whole() -> None:
    check(make_model(), make_model().state_dict())


def test_weights_that_the_model_renames_are_whole() -> None:
    state = make_model().state_dict()
    state['2.kernel'] = state.pop('2.weight')
    check(make_model(), state)


def test_buffers_may_be_missing() -> None:
    check(make_model(), dict(make_model().named_parameters()))


def test_a_missing_parameter_and_one_of_another_shape_are_refused() -> None:
    state = make_model().state_dict()
    del state['0.bias']
    state['2.weight'] = torch.zeros(5, 4)
    with pytest.raises(CheckpointError, match=r'a\.pth\b.*\b2\b.*\b5\b.* 0\.bias, 2\.weight$'):
        check(make_model(), state)


@pytest.mark.parametrize('wrap', [lambda model: model, Augmented], ids=['alone', 'wrapped'])
def test_a_published_classifier_is_taken_by_its_own_names(wrap) -> None:
    model, theirs = Classifier(), Classifier()
    head = {f'head.{key}': value for key, value in theirs.head.fc.state_dict().items()}
    check(wrap(model), {**theirs.backbone.state_dict(), **head})
    for ours, expected in zip(model.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(ours, expected)
