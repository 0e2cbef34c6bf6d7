"""The families: sizes as published, and everything that works for RoPEViT."""

import copy
import re
import warnings
from collections.abc import Callable

import pytest
import timm
import torch
from mmengine.registry import MODELS
from torch import nn

import mmrope
from mmrope.analysis.onnx import export_onnx
from mmrope.models.families import FAMILIES, Family
from mmrope.weights.building import NAMES, build_backbone
from tests.helpers.compiler import needs_any_size

ARCH = dict(embed_dims=32, depth=4, num_heads=2)
SMALL = dict(arch=ARCH, img_size=24, patch_size=4)
KINDS: dict[str, Callable[..., nn.Module]] = {
    'DINOv3ViT': lambda **kwargs: mmrope.DINOv3ViT(**SMALL, **kwargs),
    'EVA02ViT': lambda **kwargs: mmrope.EVA02ViT(**SMALL, mlp_norm=True, attn_norm=True, **kwargs),
    'PEViT': lambda **kwargs: mmrope.PEViT(**SMALL, **kwargs),
    'SAM3ViT': lambda **kwargs: mmrope.SAM3ViT(**SMALL, **{'window_size': 0, **kwargs}),
    'SBBViT': lambda **kwargs: mmrope.SBBViT(**SMALL, **kwargs),
    'Sapiens2ViT': lambda **kwargs: mmrope.Sapiens2ViT(**SMALL, **kwargs),
}
WINDOWS = dict(window_size=5, global_attn_indexes=(1,))
kinds = pytest.mark.parametrize('kind', KINDS)
two_kinds = pytest.mark.parametrize(
    'kind',
    [kind if kind in ('DINOv3ViT', 'EVA02ViT') else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS],
)
cuts = pytest.mark.parametrize('windows', [{}, WINDOWS], ids=['global', 'windows'])


def make(kind: str, **kwargs) -> nn.Module:
    model = KINDS[kind](**kwargs)
    for name, param in model.named_parameters():
        if 'gamma' in name:
            nn.init.constant_(param, 0.5)
    return model


def images(*size: int) -> torch.Tensor:
    return torch.randn(2, 3, *(size or (45, 70)))


@kinds
@cuts
@pytest.mark.parametrize('size', [(24, 24), (45, 70), (1, 1)])
def test_maps_have_the_promised_shape(kind, windows, size) -> None:
    outs = make(kind, **windows, out_indices=(0, 3), final_norm=True, norm_every_output=True)(images(*size))
    assert [out.shape for out in outs] == [(2, 32, -(-size[0] // 4), -(-size[1] // 4))] * 2


@kinds
@cuts
@pytest.mark.parametrize('with_cp', [False, True])
def test_every_parameter_gets_a_gradient(kind, windows, with_cp) -> None:
    model = make(kind, **windows, with_cp=with_cp, final_norm=True)
    model(images())[0].square().sum().backward()
    assert not [name for name, param in model.named_parameters() if param.grad is None or not param.grad.abs().sum()]


@kinds
def test_it_is_built_under_any_scope_and_is_a_ropevit(kind) -> None:
    for scope in ('mmengine', 'mmrope'):
        name = kind if scope == 'mmrope' else f'mmrope.{kind}'
        with_scope = {} if scope == 'mmengine' else {'_scope_': 'mmrope'}
        model = MODELS.build(dict(type=name, **SMALL, **with_scope))
        assert type(model) is getattr(mmrope, kind) and isinstance(model, mmrope.RoPEViT)


@kinds
def test_arguments_go_before_those_of_the_family(kind) -> None:
    model = getattr(mmrope, kind)(**SMALL, with_cls_token=False, num_registers=3, layer_scale_init_value=0.3)
    assert model.cls_token is None and model.reg_token.shape == (1, 3, 32)
    assert model.blocks[0].gamma_1[0].item() == pytest.approx(0.3)
    assert getattr(mmrope, kind)(**SMALL, rope='mixed').blocks[0].attn.rope.freqs.requires_grad
    with pytest.raises(
        ValueError, match=rf'arch must be one of {next(iter(getattr(mmrope, kind).ARCHS))}\b.* got .huge'
    ):
        getattr(mmrope, kind)('huge')
    with pytest.raises(ValueError, match="arch must have .*'width': 3"):
        getattr(mmrope, kind)({**ARCH, 'width': 3})


TIMM = {  # sizes, and models of timm's of the same
    **{
        ('DINOv3ViT', arch): f'vit_{arch}_patch16_dinov3' for arch in 'small small_plus base large huge_plus 7b'.split()
    },
    ('DINOv3ViT', 'tiny'): 'vit_tiny_patch16_dinov3_qkvb',
    ('DINOv3ViT', 'giant'): 'vit_giant_patch16_lingbot',
    **{('EVA02ViT', arch): f'eva02_{arch}_patch14_224' for arch in 'tiny small base large'.split()},
    ('EVA02ViT', 'clip_base'): 'eva02_base_patch16_clip_224',
    ('EVA02ViT', 'clip_large'): 'eva02_large_patch14_clip_224',
    ('PEViT', 'tiny'): 'vit_pe_core_tiny_patch16_384',
    ('PEViT', 'small'): 'vit_pe_core_small_patch16_384',
    ('PEViT', 'base'): 'vit_pe_core_base_patch16_224',
    ('PEViT', 'large'): 'vit_pe_core_large_patch14_336',
    ('PEViT', 'giant'): 'vit_pe_core_gigantic_patch14_448',
    **{('PEViT', f'spatial_{arch}'): f'vit_pe_spatial_{arch}_patch16_512' for arch in ('tiny', 'small', 'base')},
    ('PEViT', 'spatial_large'): 'vit_pe_spatial_large_patch14_448',
    ('PEViT', 'spatial_giant'): 'vit_pe_spatial_gigantic_patch14_448',
    ('PEViT', 'lang_large'): 'vit_pe_lang_large_patch14_448',
    ('PEViT', 'lang_giant'): 'vit_pe_lang_gigantic_patch14_448',
    ('SBBViT', 'medium'): 'vit_medium_patch16_rope_reg1_gap_256',
    ('SBBViT', 'mediumd'): 'vit_mediumd_patch16_rope_reg1_gap_256',
    ('SBBViT', 'betwixt'): 'vit_betwixt_patch16_rope_reg4_gap_256',
    ('SBBViT', 'base'): 'vit_base_patch16_rope_reg1_gap_256',
    ('Sapiens2ViT', '0.1b'): 'vit_base_patch16_sapiens2',
    ('Sapiens2ViT', '0.4b'): 'vit_large_patch16_sapiens2',
    ('Sapiens2ViT', '0.8b'): 'vit_huge_patch16_sapiens2',
    ('Sapiens2ViT', '1b'): 'vit_giant_patch16_sapiens2',
    ('Sapiens2ViT', '5b'): 'vit_5b_patch16_sapiens2',
}


def test_every_size_but_those_that_timm_lacks_is_compared_with_it() -> None:
    sizes = {(cls.__name__, arch) for cls in FAMILIES for arch in cls.ARCHS}
    assert sizes - set(TIMM) == {('DINOv3ViT', 'large_plus'), ('SAM3ViT', 'large')}


@pytest.mark.parametrize('size, name', TIMM.items(), ids=lambda value: value if isinstance(value, str) else '')
def test_sizes_are_timms(size, name) -> None:
    with torch.device('meta'):
        theirs = timm.create_model(name, num_classes=0)
        ours = getattr(mmrope, size[0])(size[1])
    block, other = ours.blocks[0], theirs.blocks[0]
    assert (ours.embed_dims, len(ours.blocks), block.attn.num_heads) == (
        theirs.embed_dim,
        len(theirs.blocks),
        other.attn.num_heads,
    )
    assert block.mlp.fc2.weight.shape == other.mlp.fc2.weight.shape
    assert (type(block.mlp).__name__ == 'GluMlp') == (type(other.mlp).__name__ in ('GluMlp', 'SwiGLU'))
    assert block.norm1.eps == other.norm1.eps
    assert (block.gamma_1 is None) == (other.gamma_1 is None)
    assert ours.num_prefix == theirs.num_prefix_tokens and (ours.cls_token is None) == (theirs.cls_token is None)
    assert (ours.norm_pre is None) == isinstance(theirs.norm_pre, nn.Identity)
    assert ours.patch_embed.patch_size == theirs.patch_embed.patch_size
    assert (ours.pos_embed is None) == (theirs.pos_embed is None)
    assert ours.pos_embed is None or ours.pos_grid == theirs.patch_embed.grid_size
    for part in ('norm', 'q_norm'):
        assert (getattr(block.attn, part) is None) == isinstance(getattr(other.attn, part), nn.Identity)
    assert isinstance(block.mlp.norm, nn.Identity) == isinstance(other.mlp.norm, nn.Identity)
    assert block.attn.rope.theta == theirs.rope.temperature


def test_the_sizes_that_timm_lacks() -> None:
    with torch.device('meta'):
        plus, sam3 = mmrope.DINOv3ViT('large_plus'), mmrope.SAM3ViT()
    assert (plus.embed_dims, len(plus.blocks), plus.blocks[0].attn.num_heads) == (1024, 24, 16)
    assert plus.blocks[0].mlp.fc2.weight.shape == (1024, 4096) and plus.blocks[0].mlp.fc1.weight.shape == (8192, 1024)
    assert (sam3.embed_dims, len(sam3.blocks), sam3.blocks[0].attn.num_heads) == (1024, 32, 16)
    assert sam3.blocks[0].mlp.fc1.weight.shape == (4736, 1024) and sam3.blocks[0].norm1.eps == 1e-5
    assert sam3.pos_grid == (24, 24) and sam3.window_size == 24 and sam3.global_blocks == {7, 15, 23, 31}


@two_kinds
@cuts
def test_compiles_in_one_graph(kind, windows) -> None:
    model, x = make(kind, **windows).eval(), images()
    torch.compiler.reset()  # what other tests compiled counts towards a limit
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    with torch.no_grad():
        torch.testing.assert_close(compiled(x)[0], model(x)[0], rtol=0, atol=1e-5)


@needs_any_size
@two_kinds
def test_global_attention_is_exported_for_any_size(kind) -> None:
    model = make(kind).eval()
    axes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(model, (images(40, 28),), dynamic_shapes=(axes,)).module()  # no side of the embedding
    with torch.no_grad():
        for size in ((45, 70), (64, 32)):
            x = images(*size)
            torch.testing.assert_close(program(x)[0], model(x)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    'kind', [kind if kind == 'DINOv3ViT' else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_onnx_takes_any_size(kind, tmp_path) -> None:
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    worst = export_onnx(make(kind).eval(), str(tmp_path / 'it.onnx'), (40, 56), dynamic_size=True)
    assert worst < 1e-5


@two_kinds
@cuts
def test_jit_trace_gives_the_same_maps(kind, windows) -> None:
    model, x = make(kind, **windows).eval(), images()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        traced = torch.jit.trace(model, x, check_trace=False)
    torch.testing.assert_close(traced(x)[0], model(x)[0], rtol=0, atol=1e-5)


@kinds
def test_half_precision_stays_near(kind) -> None:
    model, x = make(kind, **WINDOWS).eval(), images()
    with torch.no_grad():
        expected = model(x)[0]
        with torch.autocast('cpu', torch.bfloat16):
            ours = model(x)[0]
    assert (ours.float() - expected).norm() < 3e-2 * expected.norm()


@kinds
def test_frozen_blocks_and_layers_that_learn_slower(kind) -> None:
    model = make(kind, frozen_stages=4, final_norm=True).train()
    assert not any(param.requires_grad for param in model.parameters())
    assert not any(block.training for block in model.blocks)
    depths = {name: model.get_layer_depth(name)[0] for name, _ in model.named_parameters()}
    for name, depth in depths.items():
        block = re.match(r'blocks\.(\d)', name)
        assert depth == (int(block[1]) + 1 if block else 5 if name.startswith('norm.') else 0), name


@kinds
def test_to_grid_puts_the_tokens_of_a_block_in_their_places(kind) -> None:
    model, tokens = make(kind, **WINDOWS).eval(), []
    model.blocks[2].register_forward_hook(lambda module, args, out: tokens.append(out))
    model.blocks[3].register_forward_hook(lambda module, args, out: args[0])
    out = model(images())[0]
    assert torch.equal(model.to_grid(tokens[0], (45, 70)), out)


@kinds
def test_checkpoints_hold_frequencies_where_files_decide_them(kind) -> None:
    stored = any(key.endswith('rope.freqs') for key in make(kind).state_dict())
    assert stored == (kind == 'DINOv3ViT')
    ours, theirs = make(kind), make(kind)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    assert torch.equal(ours.eval()(x := images())[0], theirs.eval()(x)[0])


@kinds
def test_frequencies_survive_construction_on_meta(kind) -> None:
    real = make(kind).eval()
    with torch.device('meta'):
        model = make(kind).eval()
    model.to_empty(device='cpu').load_state_dict(real.state_dict())
    x = images()
    assert torch.equal(model(x)[0], real(x)[0])


def test_names_of_backbones_are_classes_and_sizes() -> None:
    with torch.device('meta'):
        for name, cls, dims in (
            ('dinov3_vit_small_plus', mmrope.DINOv3ViT, 384),
            ('eva02_vit_clip_base', mmrope.EVA02ViT, 768),
            ('pe_vit_spatial_base', mmrope.PEViT, 768),
            ('sam3_vit_large', mmrope.SAM3ViT, 1024),
            ('sbb_vit_betwixt', mmrope.SBBViT, 640),
            ('sapiens2_vit_0.1b', mmrope.Sapiens2ViT, 768),
        ):
            model = build_backbone(name)
            assert type(model) is cls and model.embed_dims == dims
    assert sum(issubclass(cls, Family) for cls, _ in NAMES.values()) == sum(len(cls.ARCHS) for cls in FAMILIES)


def test_pretrained_true_asks_which_of_several_weights() -> None:
    with torch.device('meta'):
        with pytest.raises(ValueError, match='vit_base_patch16_lingbot.robbyant, vit_base_patch16_dinov3.lvd1689m'):
            build_backbone('dinov3_vit_base', pretrained=True)
        with pytest.raises(ValueError, match='published ones: none'):
            build_backbone('sam3_vit_large', pretrained=True)
