"""torch.compile: one graph a model, the same values and gradients, and compiled anew only when it is said to be."""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from mmrope import RoPESwin, RoPEViT
from mmrope.layers import one_window, reorder, shifted_windows
from mmrope.models import EoMT
from mmrope.models.swin import PatchMerging
from tests.helpers.compiler import needs_any_size, needs_compiler

SIZES = [(48, 48), (61, 100), (80, 40), (96, 64)]  # square, divided by nothing, portrait, landscape


def vit(**kwargs) -> RoPEViT:
    arch = dict(embed_dims=32, depth=2, num_heads=2)
    return RoPEViT(**{'arch': arch, 'img_size': 48, 'patch_size': 8, 'layer_scale_init_value': 0.5, **kwargs})


def swin(**kwargs) -> RoPESwin:
    arch = dict(embed_dims=16, depths=(2, 1), num_heads=(2, 2))
    return RoPESwin(**{'arch': arch, 'window_size': 3, 'out_indices': (0, 1), 'drop_path_rate': 0.0, **kwargs})


GLOBAL = {
    'mixed': lambda: vit(),
    'axial': lambda: vit(rope='axial'),
    'mixed+ape': lambda: vit(ape=True),
    'cls token': lambda: vit(with_cls_token=True),
    'with_cp': lambda: vit(with_cp=True),
}
WINDOWED = {
    'vit mixed': lambda: vit(window_size=3, global_attn_indexes=(1,)),
    'vit axial': lambda: vit(window_size=3, rope='axial'),
    'vit with_cp': lambda: vit(window_size=3, with_cp=True),
    'swin mixed': lambda: swin(),
    'swin axial': lambda: swin(rope='axial'),
    'swin rpb': lambda: swin(rope=None, rpb=True),
    'swin mixed+rpb': lambda: swin(rpb=True),
    'swin with_cp': lambda: swin(with_cp=True),
}


def some_are_slow(models: dict[str, Callable[[], nn.Module]], *fast: str) -> pytest.MarkDecorator:
    """Run each model, but only a sample where the slow tests are left out."""
    params = [
        pytest.param(make, id=name, marks=() if name in fast else pytest.mark.slow) for name, make in models.items()
    ]
    return pytest.mark.parametrize('make', params)


@pytest.fixture(autouse=True)
def _nothing_compiled_yet() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(model: nn.Module, **options) -> tuple[Callable[[Tensor], tuple[Tensor, ...]], list]:
    """A model compiled without graph breaks, and a list that grows by one for each graph."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> Callable:
        graphs.append(graph)
        return graph.forward

    return torch.compile(model, fullgraph=True, **{'backend': backend, **options}), graphs


def assert_same_maps(ours: Callable, theirs: nn.Module, size: tuple[int, int], batch: int = 2) -> None:
    x = torch.randn(batch, 3, *size)
    with torch.no_grad():
        for a, b in zip(ours(x), theirs(x), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def assert_same_gradients(ours: Callable, model: nn.Module, twin: nn.Module, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    for run, parameters in ((ours, model), (twin, twin)):
        parameters.zero_grad()
        sum(out.square().mean() for out in run(x)).backward()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


@some_are_slow(GLOBAL | WINDOWED, 'vit mixed', 'swin mixed+rpb')
def test_inference_is_one_graph_a_size(make) -> None:
    model = make().eval()
    ours, graphs = compiled(model, dynamic=False)
    for size in SIZES[:2]:
        assert_same_maps(ours, model, size)
    assert len(graphs) == 2


@some_are_slow(GLOBAL | WINDOWED, 'vit with_cp')
def test_training_is_one_graph_with_the_same_gradients(make) -> None:
    model = make()
    twin = copy.deepcopy(model)
    ours, _ = compiled(model, backend='aot_eager', dynamic=False)
    assert_same_gradients(ours, model, twin, (61, 100))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    'make', [GLOBAL['mixed'], WINDOWED['vit mixed'], WINDOWED['swin mixed']], ids=['global', 'vit', 'swin']
)
def test_inductor_gives_the_same_values_and_gradients(make) -> None:
    model = make()
    twin = copy.deepcopy(model)
    ours, _ = compiled(model, backend='inductor')
    assert_same_gradients(ours, model, twin, (61, 100))
    assert_same_maps(ours, twin, (61, 100))


@pytest.mark.slow
@needs_compiler
def test_inductor_pads_reordered_tokens() -> None:
    """Its C++ of a padding did not compile over an index that is checked."""

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.merging = PatchMerging(16)

        def forward(self, x: Tensor) -> Tensor:
            grid = (6, 9)
            x = reorder(x + 1, shifted_windows(grid, 4, 1), one_window(grid))
            return self.merging(x.unflatten(1, grid))

    step = Step()
    x = torch.randn(2, 54, 16)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(step, fullgraph=True)(x), step(x), rtol=0, atol=1e-5)


@needs_any_size
@some_are_slow(GLOBAL, 'mixed')
def test_global_attention_serves_every_size_with_one_graph(make) -> None:
    """Marked as dynamic; an absolute embedding is a graph of its own on the grid it was learned on."""
    model = make().eval()
    ours, graphs = compiled(model)

    def marked(x: Tensor) -> tuple[Tensor, ...]:
        for axis in (0, 2, 3):
            torch._dynamo.mark_dynamic(x, axis)
        return ours(x)

    for i, size in enumerate(SIZES):
        assert_same_maps(marked, model, size, batch=2 + i)
    assert len(graphs) == 1 + (model.pos_embed is not None)


@some_are_slow(WINDOWED, 'vit mixed')
@pytest.mark.parametrize('dynamic', [pytest.param(None, marks=pytest.mark.slow), True])
def test_windows_are_compiled_once_for_each_size_and_not_for_a_batch(make, dynamic: bool | None) -> None:
    model = make().eval()
    ours, graphs = compiled(model, dynamic=dynamic)
    counts = []
    for size in (*SIZES[:3], *SIZES[:3]):
        assert_same_maps(ours, model, size)
        counts.append(len(graphs))
    assert counts == [1, 2, 3, 3, 3, 3]
    assert_same_maps(ours, model, SIZES[0], batch=5)
    assert_same_maps(ours, model, SIZES[0], batch=4)
    assert len(graphs) <= 4


@needs_any_size
@torch._dynamo.config.patch(recompile_limit=2)
def test_more_sizes_than_torchs_limit_are_an_error_with_fullgraph_alone() -> None:
    model = vit(window_size=3).eval()
    ours, _ = compiled(model)
    for size in SIZES[:2]:
        assert_same_maps(ours, model, size)
    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
        assert_same_maps(ours, model, SIZES[2])
    torch._dynamo.reset()
    ours = torch.compile(model, backend='eager')  # goes on without compiling
    for size in SIZES:
        assert_same_maps(ours, model, size)


class Segmenter(nn.Module):
    """A backbone whose last blocks are open, and the head that runs them."""

    def __init__(self, **settings) -> None:
        super().__init__()
        settings = {'final_norm': True, 'open_blocks': 1, 'out_indices': (), **settings}
        self.backbone, self.eomt = vit(**settings), EoMT(32, 3, 5, 1, 8)
        self.eomt.mask_probabilities = [0.5]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(logits for prediction in self.eomt(self.backbone(x)[-1]) for logits in prediction)


@pytest.mark.parametrize(
    'settings',
    [
        pytest.param(dict(), marks=pytest.mark.slow),
        dict(window_size=3, global_attn_indexes=(1,), with_cls_token=True),
    ],
)
@pytest.mark.parametrize('training', [False, True])
def test_open_blocks_and_their_head_are_one_graph(settings: dict, training: bool) -> None:
    model = Segmenter(**settings).train(training)
    ours, graphs = compiled(model)
    x = torch.randn(2, 3, 61, 100)
    outs = []
    for run in (ours, model):
        torch.manual_seed(0)
        outs.append(run(x))
    assert len(graphs) == 1 and len(outs[0]) == (4 if training else 2)
    for a, b in zip(*outs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_open_blocks_and_their_head_are_exported_for_any_size() -> None:
    model = Segmenter(with_cls_token=True).eval()
    sides = {2: 8 * torch.export.Dim('rows', min=2, max=64), 3: 8 * torch.export.Dim('cols', min=2, max=64)}
    program = torch.export.export(model, (torch.randn(2, 3, 48, 64),), dynamic_shapes=(sides,)).module()
    for size in ((48, 64), (80, 40)):
        assert_same_maps(program, model, size)


def test_a_compiled_backbone_hands_its_open_blocks_over() -> None:
    model = Segmenter(with_cls_token=True).eval()
    x = torch.randn(2, 3, 48, 64)
    plain = model(x)
    model.backbone.compile(backend='eager', fullgraph=True)
    for a, b in zip(model(x), plain, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
