"""A config compiles its backbone with one hook; what is trained and saved stays the same."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModel, BaseTTAModel
from mmengine.runner import Runner
from torch import nn

from mmrope import RoPEViT
from mmrope.engine import CompileBackboneHook
from tests.helpers.isolation import isolated


@pytest.fixture(autouse=True)
def isolated_test() -> Iterator[None]:
    torch._dynamo.reset()
    with isolated():
        yield
    torch._dynamo.reset()


class Toy(BaseModel):
    """A backbone and a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = RoPEViT(dict(embed_dims=8, depth=2, num_heads=2), patch_size=8)
        self.head = nn.Linear(8, 1)

    def forward(self, inputs: torch.Tensor, mode: str) -> dict:
        return dict(loss=self.head(self.backbone(inputs)[-1].mean((2, 3))).square().mean())


def runner(folder: Path, model: BaseModel, hooks: list[dict]) -> Runner:
    torch.manual_seed(0)
    return Runner(
        model,
        str(folder),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.randn(3, 20, 28)) for _ in range(4)],
            batch_size=2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3)),
        custom_hooks=hooks,
        randomness=dict(seed=0),
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / 'iter_3.pth', weights_only=False)['state_dict']


def test_compiled_training_saves_the_same_weights_under_the_same_names(
    tmp_path: Path, close: Callable[..., None]
) -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> torch.nn.Module:
        graphs.append(graph)
        return graph

    hook = dict(type='mmrope.CompileBackboneHook', backend=backend, fullgraph=True)
    for name, hooks in (('compiled', [hook]), ('plain', [])):
        torch.manual_seed(1)
        runner(tmp_path / name, Toy(), hooks).train()
        assert len(graphs) == 1, 'the backbone is one graph, and only the hook compiles'
    compiled, plain = weights(tmp_path / 'compiled'), weights(tmp_path / 'plain')
    assert list(compiled) == list(plain)
    for name, value in compiled.items():
        close(value, plain[name])


class Augmented(BaseTTAModel):
    def merge_preds(self, data_samples_list: list) -> None: ...


@pytest.mark.parametrize('wrap', [Augmented, nn.DataParallel, lambda model: nn.DataParallel(Augmented(model))])
def test_the_backbone_is_found_below_wrappers_of_a_model(wrap) -> None:
    model = Toy()
    CompileBackboneHook().before_run(SimpleNamespace(model=wrap(model)))
    assert model.backbone._compiled_call_impl is not None


def test_model_without_backbone_is_named(tmp_path: Path) -> None:
    model = Toy()
    del model.backbone
    with pytest.raises(AttributeError, match="'Toy' object has no attribute 'backbone'"):
        runner(tmp_path, model, [dict(type='mmrope.CompileBackboneHook')]).train()
