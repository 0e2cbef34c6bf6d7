"""What people do to backbones: adapters, other MLPs, hooks, quantisation, checkpointing, averages, exporters.

Gradients of eager mode are compared with those of the plain path that compilers see.
"""

import copy
import io
import pickle
import time
import warnings
from collections.abc import Callable
from functools import partial

import pytest
import torch
from timm.layers import SwiGLU
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from torch.func import functional_call
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from mmrope import RoPESwin, RoPEViT
from mmrope.layers import Attention, Block, Windows, qkv, rope
from tests.helpers.checkpointing import selective_contexts

VIT = dict(arch=dict(embed_dims=16, depth=2, num_heads=2), patch_size=4, img_size=16, layer_scale_init_value=0.5)
SWIN = dict(arch=dict(embed_dims=8, depths=(2, 1), num_heads=(1, 2)), window_size=3, drop_path_rate=0.0)
MODELS: dict[str, Callable[[], nn.Module]] = {
    'vit': lambda: RoPEViT(**VIT, window_size=3, global_attn_indexes=(1,)),
    'vit cls token axial ape': lambda: RoPEViT(**VIT, rope='axial', ape=True, with_cls_token=True),
    'swin': lambda: RoPESwin(**SWIN, out_indices=(0, 1)),
    'swin rpb': lambda: RoPESwin(**SWIN, out_indices=(0, 1), rpb=True),
}
models = pytest.mark.parametrize('name', MODELS)
SIZE = (21, 30)  # 6 x 8 tokens


def make(name: str) -> nn.Module:
    model = MODELS[name]().train()
    for key, param in model.named_parameters():
        if key.endswith(('qkv.weight', 'table')):  # attention that is far from uniform
            nn.init.normal_(param, std=0.3)
    return model


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *SIZE)


def loss_of(maps) -> Tensor:
    return sum((out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum() for out in maps)


def gradients(model: nn.Module, x: Tensor, run: Callable | None = None) -> dict[str, Tensor]:
    """Gradients of the image and of all that learns."""
    x = x.detach().requires_grad_()
    named = {name: param for name, param in model.named_parameters() if param.requires_grad}
    for param in named.values():
        param.grad = None
    loss_of((run or model)(x)).backward()
    return {'x': x.grad, **{name: param.grad.clone() for name, param in named.items() if param.grad is not None}}


def plain_gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Those of the definition, without a custom backward."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qkv, 'is_tracing', lambda: True)
        patch.setattr(rope, 'is_tracing', lambda: True)
        return gradients(model, x)


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert ours.keys() == theirs.keys() and len(ours) > 1
    for name, grad in theirs.items():
        assert grad.abs().sum() > 0, name
        assert (ours[name] - grad).norm() <= tolerance * grad.norm(), name


class LoRA(nn.Module):
    """A linear layer, frozen, plus a product of two small ones."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down, self.up = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


class DoRA(LoRA):
    """A learned length for each row of the weight that LoRA changes."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        self.magnitude = nn.Parameter(base.weight.norm(dim=1))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.base.weight + self.up.weight @ self.down.weight
        return nn.functional.linear(x, weight * (self.magnitude / weight.norm(dim=1))[:, None], self.base.bias)


class IA3(nn.Module):
    """A frozen linear layer, its outputs scaled in place."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = nn.Parameter(torch.rand(base.out_features))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) * self.scale


def wrap_linears(model: nn.Module, wrap: Callable[[nn.Linear], nn.Module]) -> None:
    model.requires_grad_(False)
    for module in list(model.modules()):
        if isinstance(module, Attention):
            module.qkv, module.proj = wrap(module.qkv), wrap(module.proj)
        elif isinstance(module, Block):
            module.mlp.fc1 = wrap(module.mlp.fc1)


def other_mlps(model: nn.Module) -> None:
    for block in blocks_of(model):
        block.mlp = SwiGLU(block.norm2.normalized_shape[0], 24)


def linears_of(model: nn.Module) -> list[nn.Linear]:
    return [module for block in blocks_of(model) for module in block.modules() if type(module) is nn.Linear]


def blocks_of(model: nn.Module) -> list[Block]:
    return [module for module in model.modules() if isinstance(module, Block)]


def on_linears(change: Callable[[nn.Linear], object]) -> Callable[[nn.Module], None]:
    return lambda model: [change(linear) for linear in linears_of(model)] and None


def follow_with(layer: Callable[[], nn.Module]) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        for block in blocks_of(model):
            block.attn.qkv = nn.Sequential(block.attn.qkv, layer())

    return change


def hook_everything(model: nn.Module) -> None:
    """Each kind of hook on each module that has one input and one output."""
    for module in model.modules():
        module.register_forward_pre_hook(lambda *args: None)
        module.register_forward_hook(lambda *args: None)
        if isinstance(module, (nn.Linear, nn.LayerNorm, nn.GELU, Block)):
            module.register_full_backward_pre_hook(lambda *args: None)
            module.register_full_backward_hook(lambda *args: None)


CHANGES: dict[str, Callable[[nn.Module], None]] = {
    'nothing': lambda model: None,
    'LoRA': partial(wrap_linears, wrap=LoRA),
    'DoRA': partial(wrap_linears, wrap=DoRA),
    'IA3': partial(wrap_linears, wrap=IA3),
    'SwiGLU': other_mlps,
    'spectral norm': on_linears(lambda linear: parametrizations.spectral_norm(linear.eval())),
    'weight norm': on_linears(parametrizations.weight_norm),
    'pruning': on_linears(lambda linear: prune.l1_unstructured(linear, 'weight', 0.5)),
    'tanh after qkv': follow_with(nn.Tanh),
    'ReLU after qkv': follow_with(lambda: nn.LeakyReLU(inplace=True)),
    'hooks': hook_everything,
    'only freqs learn': lambda model: [p.requires_grad_('freqs' in n) for n, p in model.named_parameters()] and None,
    'all but freqs learn': lambda model: [
        p.requires_grad_('freqs' not in n) for n, p in model.named_parameters()
    ] and None,
}  # fmt: skip


@models
@pytest.mark.parametrize('change', CHANGES)
def test_a_changed_model_learns_as_its_definition_does(change, name) -> None:
    if change == 'only freqs learn' and 'axial' in name:
        pytest.skip('axial frequencies do not learn')
    model, x = make(name), images()
    CHANGES[change](model)
    assert_same(gradients(model, x), plain_gradients(model, x))


def under(context: Callable) -> Callable:
    def run(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        with context():
            return gradients(model, x)

    return run


def retained(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    kept = []
    for block in blocks_of(model):
        block.attn.qkv.register_forward_hook(lambda module, args, out: out.retain_grad() or kept.append(out))
    grads = gradients(model, x)
    assert all(out.grad.abs().sum() > 0 for out in kept) and len(kept) == len(blocks_of(model))
    return grads


def wrapped(kinds: tuple[type, ...], model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    apply_activation_checkpointing(model, check_fn=lambda module: isinstance(module, kinds))
    grads = gradients(model, x)
    return {name.replace('_checkpoint_wrapped_module.', ''): grad for name, grad in grads.items()}


def selective(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    context = partial(selective_contexts(), [torch.ops.aten.mm.default, torch.ops.aten.addmm.default])
    return gradients(model, x, lambda x: checkpoint(model, x, use_reentrant=False, context_fn=context))


def twice(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    x = x.detach().requires_grad_()
    loss = loss_of(model(x))
    loss.backward(retain_graph=True)
    loss.backward()
    grads = {'x': x.grad, **{name: param.grad for name, param in model.named_parameters()}}
    return {name: grad / 2 for name, grad in grads.items() if grad is not None}


def pickled(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    return gradients(pickle.loads(pickle.dumps(model)), x)


def saved(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return gradients(torch.load(file, weights_only=False), x)


def inferred_first(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    with torch.inference_mode():
        model.eval()(x)
    return gradients(model.train(), x)


def accumulated(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Two batches of half the size and an empty one; the weights of the loss are those of the whole."""
    halves = [part.detach().requires_grad_() for part in (*x.split(1), x[:0])]
    weights = [torch.linspace(-1, 1, out.numel()).view(out.shape).split((1, 1, 0)) for out in model(x)]
    for i, part in enumerate(halves):
        sum((out * weight[i]).sum() for out, weight in zip(model(part), weights)).backward()
    named = {name: param.grad for name, param in model.named_parameters() if param.grad is not None}
    return {'x': torch.cat([part.grad for part in halves]), **named}


def reentrant(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    return gradients(model, x, lambda x: checkpoint(model, x, use_reentrant=True))


WAYS: dict[str, Callable[[nn.Module, Tensor], dict[str, Tensor]]] = {
    'save_on_cpu': under(torch.autograd.graph.save_on_cpu),
    'anomaly mode': under(torch.autograd.detect_anomaly),
    'gradient of qkv retained': retained,
    'attention checkpointed': partial(wrapped, (Attention,)),
    'linears checkpointed': partial(wrapped, (nn.Linear,)),
    'selective checkpoint': selective,
    'reentrant checkpoint': reentrant,
    'two backwards': twice,
    'deepcopy': lambda model, x: gradients(copy.deepcopy(model), x),
    'pickle': pickled,
    'torch.save': saved,
    'inference first': inferred_first,
    'accumulated, with an empty batch': accumulated,
    'channels_last': lambda model, x: gradients(
        model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    ),
    'permuted image': lambda model, x: gradients(model, x.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)),
}


@models
@pytest.mark.parametrize('way', WAYS)
@pytest.mark.filterwarnings('ignore:Anomaly Detection')
def test_gradients_are_the_same_in_every_way_to_compute_them(way, name) -> None:
    model, x = make(name), images()
    expected = gradients(copy.deepcopy(model), x)
    assert_same(WAYS[way](model, x), expected)


@models
def test_int8_linears_give_nearly_the_same_maps(name) -> None:
    model, x = make(name).eval(), images()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')  # deprecated, and still what people use
        quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)
        assert not any(type(module) is nn.Linear for module in quantised.modules())
        for ours, exact in zip(quantised(x), model(x), strict=True):
            assert 0 < (ours - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('name', ['vit', 'swin rpb'])
def test_functional_calls_use_the_frequencies_that_they_are_given(name: str, training: bool) -> None:
    model, x = make(name).train(training), images()
    key = next(name for name, _ in model.named_parameters() if name.endswith('freqs'))
    seen = []
    for step in range(5):
        freqs = dict(model.named_parameters())[key].detach() * (1 + step)
        ours = functional_call(model, {key: freqs}, (x,))[-1]
        twin = copy.deepcopy(model)
        twin.get_parameter(key).data.copy_(freqs)
        assert torch.equal(ours, twin(x)[-1])
        seen.append(ours)
    assert not any(torch.equal(a, b) for a, b in zip(seen, seen[1:]))


@pytest.mark.parametrize('kind', [torch.optim.AdamW, torch.optim.SGD])
@models
def test_averages_and_fused_optimisers_change_the_angles_too(name, kind) -> None:
    """The teacher is in eval all the time; a model that is made anew from its weights gives the same maps."""
    model, x = make(name), images()
    teacher = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5)).eval()
    optimizer = kind(model.parameters(), lr=1e-3, fused=True)
    before = None
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(model(x)).backward()
        optimizer.step()
        teacher.update_parameters(model)
        for trained in (model, teacher.module):
            fresh = MODELS[name]()
            fresh.load_state_dict(trained.state_dict())
            fresh.train(trained.training)
            with torch.no_grad():
                assert all(map(torch.equal, trained(x), fresh(x)))
        after = teacher(x)[-1]
        assert before is None or not torch.equal(before, after)
        before = after


@pytest.mark.parametrize('name', ['vit', 'swin rpb'])
def test_blocks_that_are_compiled_one_by_one_learn_the_same(name: str) -> None:
    """Once for each shape and cut of tokens, not for each group of windows."""
    model, x = make(name), images()
    expected = gradients(copy.deepcopy(model), x)
    torch._dynamo.reset()
    graphs, started = [], time.perf_counter()

    def backend(graph: torch.fx.GraphModule, inputs: list) -> Callable:
        graphs.append(graph)
        return torch._dynamo.lookup_backend('aot_eager')(graph, inputs)

    for block in blocks_of(model):
        block.compile(backend=backend, dynamic=False)
    assert_same(gradients(model, x), expected)
    print(f'{name}: {len(graphs)} graphs in {time.perf_counter() - started:.1f} s')
    assert len(graphs) <= len(blocks_of(model))
    first = len(graphs)
    assert_same(gradients(model, x), expected)
    assert len(graphs) == first
    torch._dynamo.reset()


@pytest.mark.parametrize(
    'name', [name if name == 'vit' else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_torch_export_gives_the_same_maps(name) -> None:
    model, x = make(name).eval(), images()
    exported = torch.export.export(model, (x,)).module()
    for ours, theirs in zip(exported(x), model(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


class Pooling(nn.Module):
    """A token mixer of a user's, which knows no mask."""

    def forward(self, x: Tensor, windows: Windows, order: Windows | None) -> Tensor:
        return x.mean(1, keepdim=True).expand_as(x)


class Skipping(nn.Module):
    """A block of a user's, which knows no mask."""

    def forward(self, x: Tensor, windows: Windows, order: Windows | None = None) -> Tensor:
        return 2 * x


@pytest.mark.parametrize('with_cp', [False, True])
def test_blocks_and_attention_of_a_user_need_not_know_of_masks(with_cp: bool) -> None:
    model = RoPEViT(dict(embed_dims=16, depth=3, num_heads=2), with_cp=with_cp)
    model.blocks[0].attn, model.blocks[1] = Pooling(), Skipping()
    (out,) = model(torch.randn(2, 3, 40, 56))
    out.sum().backward()
    assert out.shape == (2, 16, 3, 4) and model.patch_embed.proj.weight.grad.abs().sum() > 0
