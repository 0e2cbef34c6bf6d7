"""timm's ViTs with RoPE, tiny and random, the class and arguments of mmrope for each, and files in other layouts."""

import re
from typing import Any

import timm
import torch
from torch import Tensor, nn

import mmrope

# All of timm's ViTs with RoPE in its class Eva: written down, so that a new one shows.
NAMES = """
eva02_base_patch14_224 eva02_base_patch14_448 eva02_base_patch16_clip_224 eva02_large_patch14_224
eva02_large_patch14_448 eva02_large_patch14_clip_224 eva02_large_patch14_clip_336 eva02_small_patch14_224
eva02_small_patch14_336 eva02_tiny_patch14_224 eva02_tiny_patch14_336 vit_5b_patch16_sapiens2 vit_7b_patch16_dinov3
vit_base_patch16_dinov3 vit_base_patch16_dinov3_qkvb vit_base_patch16_lingbot vit_base_patch16_rope_224
vit_base_patch16_rope_ape_224 vit_base_patch16_rope_mixed_224 vit_base_patch16_rope_mixed_ape_224
vit_base_patch16_rope_reg1_gap_256 vit_base_patch16_sapiens2 vit_betwixt_patch16_rope_reg4_gap_256
vit_giant_patch16_lingbot vit_giant_patch16_sapiens2 vit_huge_patch16_sapiens2 vit_huge_plus_patch16_dinov3
vit_huge_plus_patch16_dinov3_qkvb vit_large_patch16_dinov3 vit_large_patch16_dinov3_qkvb vit_large_patch16_lingbot
vit_large_patch16_rope_224 vit_large_patch16_rope_ape_224 vit_large_patch16_rope_mixed_224
vit_large_patch16_rope_mixed_ape_224 vit_large_patch16_sapiens2 vit_medium_patch16_rope_reg1_gap_256
vit_mediumd_patch16_rope_reg1_gap_256 vit_pe_core_base_patch16_224 vit_pe_core_gigantic_patch14_448
vit_pe_core_large_patch14_336 vit_pe_core_small_patch16_384 vit_pe_core_tiny_patch16_384
vit_pe_lang_gigantic_patch14_448 vit_pe_lang_large_patch14_448 vit_pe_spatial_base_patch16_512
vit_pe_spatial_gigantic_patch14_448 vit_pe_spatial_large_patch14_448 vit_pe_spatial_small_patch16_512
vit_pe_spatial_tiny_patch16_512 vit_small_patch16_dinov3 vit_small_patch16_dinov3_qkvb vit_small_patch16_lingbot
vit_small_patch16_rope_224 vit_small_patch16_rope_ape_224 vit_small_patch16_rope_mixed_224
vit_small_patch16_rope_mixed_ape_224 vit_small_plus_patch16_dinov3 vit_small_plus_patch16_dinov3_qkvb
vit_tiny_patch16_dinov3_qkvb
""".split()
REPEATS = re.compile(  # models that, as tiny as here, only repeat another of these
    r'eva02_(small|large)_patch14_\d+|eva02_large_patch14_clip_336|vit_(base|large|huge_plus)_patch16_dinov3.*'
    r'|vit_(base|large)_patch16_(lingbot|rope_(\w+_)?224)|vit_(large|giant)_patch16_sapiens2'
    r'|vit_pe_(core|spatial)_(small|base)_.*'
)
HEAD_DIMS = {'pe_\\w+_gigantic': 96, '_7b_': 128, 'huge_patch16_sapiens2': 80, '_5b_': 76}  # others have 64
HEADS, DEPTH = 2, 3


def names_of_timm() -> list[str]:
    """Its ViTs with RoPE, as it lists them."""
    wanted = r'eva02_(tiny|small|base|large)|_rope|_pe_|dinov3|lingbot|sapiens2'
    listed = timm.list_models('eva02_*') + timm.list_models('vit_*')
    return sorted(name for name in listed if re.search(wanted, name))


def tiny_timm(name: str) -> nn.Module:
    """A random model of timm's, as tiny as its layout allows."""
    head_dim = next((size for pattern, size in HEAD_DIMS.items() if re.search(pattern, name)), 64)
    options: dict[str, Any] = dict(embed_dim=HEADS * head_dim, depth=DEPTH, num_heads=HEADS)
    if 'sapiens2' in name:
        options['num_kv_heads'] = (2, 1, 2)
    if 'core' in name:  # without a pooling head, which is most of a tiny one
        options |= dict(global_pool='avg', use_fc_norm=False)
    model = timm.create_model(name, **options, num_classes=0, dynamic_img_size=True).eval()
    randomise(model)
    return model


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Draw weights with which every part matters."""
    for name, param in model.named_parameters():
        noise = torch.randn(param.shape)
        if name.endswith('freqs'):
            continue
        if 'gamma' in name:
            param.copy_(0.7 + 0.2 * noise)
        elif param.ndim == 1 and name.endswith('weight'):
            param.copy_(1 + 0.2 * noise)
        elif 'pos_embed' in name or 'token' in name:
            param.copy_(noise)
        elif param.ndim > 1:
            sharp = re.search(r'qkv|[qk]_proj', name) is not None  # attention that is far from uniform
            param.copy_(noise * (1 + sharp) / param[0].numel() ** 0.5)
        else:
            param.copy_(0.3 * noise)


def arguments(name: str, model: nn.Module) -> tuple[type, dict[str, Any]]:
    """The class of mmrope for a model of timm's, and arguments by what the name of the model says."""
    hidden = model.blocks[0].mlp.fc2.in_features
    dims = model.embed_dim
    settings: dict[str, Any] = dict(
        arch=dict(embed_dims=dims, depth=DEPTH, num_heads=HEADS, mlp_ratio=hidden / dims), out_indices=range(DEPTH)
    )
    antialias = dict(pos_embed_resize='bicubic_antialias')  # as timm resizes all
    if 'sapiens2' in name:
        return mmrope.Sapiens2ViT, settings
    if 'dinov3' in name or 'lingbot' in name:
        gated = re.search('plus|7b|giant', name) is not None
        return mmrope.DINOv3ViT, settings | dict(mlp='swiglu' if gated else 'gelu')
    if '_reg' in name:
        return mmrope.SBBViT, settings | dict(num_registers=int(re.search(r'_reg(\d)', name)[1]))
    if 'eva02' in name or '_pe_' in name:
        settings |= antialias | dict(img_size=int(name[-3:]), patch_size=int(re.search(r'patch(\d+)', name)[1]))
    if 'eva02' in name:
        norms = dict(mlp_norm='base' in name or 'large' in name, attn_norm='clip' in name)
        return mmrope.EVA02ViT, settings | norms
    if '_pe_' in name:
        scale = 'lang' in name or 'spatial_gigantic' in name
        options = dict(with_cls_token='gigantic' not in name, layer_scale_init_value=0.1 if scale else None)
        return mmrope.PEViT, settings | options
    variant = dict(rope='mixed' if 'mixed' in name else 'axial', ape='ape' in name)
    return mmrope.RoPEViT, settings | antialias | variant | dict(with_cls_token=True)


def sizes(model: nn.Module) -> list[tuple[int, int]]:
    """Its own size and others, square and not, in whole patches."""
    patch = model.patch_embed.patch_size[0]
    own = tuple(patch * side for side in model.patch_embed.grid_size)
    small = own if max(own) <= 24 * patch else (16 * patch, 16 * patch)
    return [small, *((patch * h, patch * w) for h, w in ((8, 8), (5, 9), (17, 6), (11, 22)))]


@torch.no_grad()
def worst_error(ours: nn.Module, theirs: nn.Module, size: tuple[int, int]) -> float:
    """The largest difference between the features of a block, over the largest feature."""
    x = torch.randn(2, 3, *size)
    _, expected = theirs.forward_intermediates(x, norm=False)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(ours(x), expected, strict=True))


def renamed(state: dict[str, Tensor], *pairs: tuple[str, str]) -> dict[str, Tensor]:
    """Weights under other names: patterns and what takes their place."""
    out = {}
    for key, value in state.items():
        for pattern, replacement in pairs:
            key = re.sub(pattern, replacement, key)
        out[key] = value
    return out


def rounded_periods(head_dim: int) -> Tensor:
    """Periods as the authors of DINOv3 publish them."""
    return (100 ** (4 * torch.arange(head_dim // 4) / head_dim)).bfloat16()


def official_dinov3(state: dict[str, Tensor], head_dim: int = 64) -> dict[str, Tensor]:
    """From timm's names to those of DINOv3's authors, the mask of the bias included."""
    dims = state['cls_token'].shape[-1]
    out = renamed(
        state,
        ('^reg_token', 'storage_tokens'),
        (r'gamma_(\d)', r'ls\1.gamma'),
        ('fc1_g', 'w1'),
        ('fc1_x', 'w2'),
        ('fc2', 'w3') if any('fc1_g' in key for key in state) else ('$^', ''),
    )
    for key in [key for key in out if key.endswith('q_bias')]:
        q, v = out.pop(key), out.pop(key.replace('q_bias', 'v_bias'))
        name = key.replace('q_bias', 'qkv.bias')
        out[name] = torch.cat((q, torch.full_like(q, 7.0), v))  # the third that the mask hides
        out[f'{name}_mask'] = torch.cat((torch.ones_like(q), torch.zeros_like(q), torch.ones_like(v)))
    out['mask_token'] = torch.randn(1, dims)
    out['rope_embed.periods'] = rounded_periods(head_dim)
    return out | {'local_cls_norm.weight': torch.ones(dims), 'local_cls_norm.bias': torch.zeros(dims)}


def hugging_face_dinov3(state: dict[str, Tensor], version: int) -> dict[str, Tensor]:
    """From timm's names to those of transformers 4 or 5."""
    out = renamed(
        state,
        ('^cls_token', 'embeddings.cls_token'),
        ('^reg_token', 'embeddings.register_tokens'),
        (r'^patch_embed\.proj', 'embeddings.patch_embeddings'),
        (r'^blocks\.', 'layer.' if version == 4 else 'model.layer.'),
        (r'gamma_(\d)', r'layer_scale\1.lambda1'),
        (r'attn\.proj', 'attention.o_proj'),
        (r'attn\.([qv])_bias', r'attention.\1_proj.bias'),
        (r'attn\.', 'attention.'),
        ('fc1_g', 'gate_proj'),
        ('fc1_x|fc1', 'up_proj'),
        ('fc2', 'down_proj'),
    )
    for key in [key for key in out if key.endswith('attention.qkv.weight')]:
        for part, value in zip('qkv', out.pop(key).chunk(3)):
            out[key.replace('qkv', f'{part}_proj')] = value
    return out | {'embeddings.mask_token': torch.randn_like(out['embeddings.cls_token'])}


def hugging_face_sapiens2(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """From timm's names to those of transformers' Sapiens2, which are those of its DINOv3."""
    out = {key: value for key, value in state.items() if '.mlp.fc1.' not in key}
    for key in state.keys() - out.keys():
        for part, value in zip('gx', state[key].chunk(2)):
            out[key.replace('fc1', f'fc1_{part}')] = value
    return hugging_face_dinov3(out, 5)


def eva02_detector(state: dict[str, Tensor]) -> dict[str, Any]:
    """From timm's names to those of a detector of EVA-02's authors, which has the cls token's embedding only."""
    out = official_eva02(
        {key: value for key, value in state.items() if key != 'cls_token'} | {'cls_token': state['pos_embed'][:, :1]}
    )
    names = {
        f'backbone.net.{key}': value
        for key, value in out.items()
        if key not in ('cls_token', 'mask_token', 'lm_head.weight') and not key.startswith(('norm.', 'rope.'))
    }
    buffers = {
        f'backbone.net.rope_{kind}.freqs_{name}': torch.randn(256, 64)
        for kind in ('win', 'glb')
        for name in ('cos', 'sin')
    }
    return {
        'model': names | buffers | {'backbone.simfp_2.0.weight': torch.randn(2, 2), 'roi_heads.weight': torch.randn(2)}
    }


def official_eva02(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """From timm's names to those of EVA-02's authors."""
    packed = not any('fc1_g' in key for key in state)
    out = renamed(
        state,
        (r'mlp\.fc1\.', 'mlp.w12.') if packed else ('$^', ''),
        (r'([qv])_proj\.bias', r'\1_bias'),
        ('fc1_g', 'w1'),
        ('fc1_x', 'w2'),
        (r'mlp\.fc2', 'mlp.w3'),
        (r'mlp\.norm', 'mlp.ffn_ln'),
        (r'attn\.norm', 'attn.inner_attn_ln'),
    )
    buffers = {f'rope.freqs_{name}': torch.randn(256, 64) for name in ('cos', 'sin')}
    buffers |= {f'blocks.0.attn.rope.freqs_{name}': torch.randn(256, 64) for name in ('cos', 'sin')}
    return out | buffers | {'mask_token': torch.randn_like(out['cls_token']), 'lm_head.weight': torch.randn(3, 4)}


def official_pe(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """From timm's names to those of PE's authors, as part of a CLIP model."""
    out = renamed(
        state,
        ('^cls_token', 'class_embedding'),
        ('^pos_embed', 'positional_embedding'),
        (r'^patch_embed\.proj', 'conv1'),
        ('^norm_pre', 'ln_pre'),
        (r'^norm\.', 'ln_post.'),
        (r'^blocks\.', 'transformer.resblocks.'),
        (r'\.norm(\d)', r'.ln_\1'),
        (r'qkv\.', 'in_proj_'),
        (r'attn\.proj', 'attn.out_proj'),
        ('fc1', 'c_fc'),
        ('fc2', 'c_proj'),
        (r'gamma_(\d)', r'ls_\1.gamma'),
    )
    for name in ('class_embedding', 'positional_embedding'):
        if name in out:
            out[name] = out[name].squeeze()
    out |= {'proj': torch.randn(3, 4), 'attn_pool.probe': torch.randn(1, 1, 4)}
    text = {'transformer.resblocks.0.attn.in_proj_weight': torch.randn(6, 2), 'logit_scale': torch.ones(())}
    return {f'visual.{key}': value for key, value in out.items()} | text


def official_sapiens2(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """From timm's names to those of Sapiens2's authors."""
    return renamed(
        state,
        ('^reg_token', 'storage_tokens'),
        (r'^patch_embed\.proj', 'patch_embed.projection'),
        (r'attn\.([qkv])_proj', r'attn.w\1'),
        ('gamma_1', 'attn.gamma.weight'),
        (r'mlp\.fc1', 'ffn.w12'),
        (r'mlp\.fc2', 'ffn.w3'),
        (r'\.norm(\d)', r'.ln\1'),
        (r'^norm\.', 'ln1.'),
    )
