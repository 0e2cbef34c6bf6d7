"""Files that Hugging Face transformers saves compute what its models compute; skipped where it is not installed."""

from pathlib import Path
from typing import Any

import pytest
import torch

import mmrope
from mmrope.weights import load_pretrained
from tests.helpers.timm_families import randomise

ARCH = dict(embed_dims=128, depth=4, num_heads=2, mlp_ratio=2)
SHAPE = dict(hidden_size=128, num_hidden_layers=4, num_attention_heads=2, intermediate_size=256)
MODELS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {  # their class and arguments, ours
    'DINOv3': ('DINOv3ViT', 'DINOv3ViT', dict(num_register_tokens=4), dict(final_norm=True)),
    'DINOv3 with a gate': (
        'DINOv3ViT',
        'DINOv3ViT',
        dict(num_register_tokens=4, use_gated_mlp=True, hidden_act='silu', query_bias=False, value_bias=False),
        dict(mlp='swiglu', final_norm=True),
    ),
    'SAM 3': (
        'Sam3ViT',
        'SAM3ViT',
        dict(image_size=112, pretrain_image_size=56, window_size=4, global_attn_indexes=[1, 3], layer_norm_eps=1e-5),
        dict(img_size=56, positions=dict(rule='reference', ref=4), window_size=4, global_attn_indexes=(1, 3)),
    ),
    'Sapiens2': (
        'Sapiens2',
        'Sapiens2ViT',
        dict(num_register_tokens=8, use_gated_mlp=True, num_key_value_heads_per_layer=[2, 1, 1, 2]),
        dict(final_norm=True),
    ),
}


@pytest.mark.parametrize('names', [True, False], ids=['saved', 'in memory'])  # whose names differ in transformers 5
@pytest.mark.parametrize('kind', MODELS)
def test_features_are_those_of_transformers(kind: str, names: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip('transformers', '5.0')
    theirs_name, ours_name, settings, options = MODELS[kind]
    if not hasattr(transformers, f'{theirs_name}Model'):
        pytest.skip(f'transformers {transformers.__version__} has no {theirs_name}Model')
    theirs = getattr(transformers, f'{theirs_name}Model')
    theirs = theirs(theirs.config_class(**SHAPE, **settings)).eval()
    randomise(theirs)
    path = tmp_path / ('model.safetensors' if names else 'state.pth')
    theirs.save_pretrained(tmp_path) if names else torch.save(theirs.state_dict(), path)
    ours = getattr(mmrope, ours_name)(ARCH, **options).eval()
    load_pretrained(ours, str(path))
    for size in [(112, 112)] if kind == 'SAM 3' else [(64, 64), (96, 160), (272, 80)]:  # SAM 3's has one size only
        x = torch.randn(2, 3, *size)
        with torch.no_grad():
            out = ours(x)[0].flatten(2).transpose(1, 2)
            expected = theirs(x).last_hidden_state[:, -out.shape[1] :]
        assert (out - expected).abs().max() < 1e-5 * expected.abs().max()
