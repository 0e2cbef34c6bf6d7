"""Detectors and segmenters start from the weights that their configs name."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

from mmrope import config_path
from tests.helpers.hub import Hub
from tests.helpers.published import as_file, swin, vit

pytest.importorskip('mmdet')
CONFIGS = {
    'mask_rcnn_rope_mixed_vit_s_coco.py': ('rope_mixed_deit_small_patch16_LS', lambda: vit('small')),
    'upernet_rope_mixed_rpb_swin_t_ade20k.py': ('swin_rope_mixed_tiny_patch4_window7_224', lambda: swin('tiny')),
    'mask2former_rope_axial_swin_s_ade20k.py': (
        'swin_rope_axial_small_patch4_window7_224',
        lambda: swin('small', 'axial'),
    ),
}


def start(name: str, hub: Hub, state: dict[str, Tensor] | None) -> torch.nn.Module:
    """Build the model of a config and initialise it, from ``state`` if it names the repository of that."""
    if state is not None:
        hub.files[f'naver-ai/{CONFIGS[name][0]}', 'pytorch_model.bin'] = as_file(state)
    cfg = Config.fromfile(config_path(name))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        model.init_weights()
    return model


@pytest.mark.parametrize('name', CONFIGS)
def test_a_model_starts_from_the_weights_its_config_names(name: str, hub: Hub) -> None:
    state = CONFIGS[name][1]()
    backbone = start(name, hub, state).backbone.state_dict()
    shared = [key for key in backbone if key in state and not key.startswith('norm')]
    assert len(shared) > 100
    assert all(torch.equal(backbone[key], state[key]) for key in shared)
    if 'swin' in name:
        assert torch.equal(backbone['norm3.weight'], state['norm.weight'])
    if 'mixed' in name:
        first = state['freqs'][:, 0].view(2, 6, 32) if 'vit' in name else state['layers.0.blocks.0.attn.rope_freqs']
        assert torch.equal(next(value for key, value in backbone.items() if key.endswith('rope.freqs')), first)


def test_a_model_without_its_weights_does_not_start(hub: Hub) -> None:
    with pytest.raises(ValueError, match='naver-ai/rope_mixed_deit_small_patch16_LS.*HF_TOKEN'):
        start('mask_rcnn_rope_mixed_vit_s_coco.py', hub, None)
