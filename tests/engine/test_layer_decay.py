import re

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmrope import RoPEViT, config_path
from mmrope.engine.layer_decay import NO_DECAY_NAMES


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        arch = dict(embed_dims=16, depth=3, num_heads=2)
        self.backbone = RoPEViT(arch, ape=True, with_cls_token=True, final_norm=True, num_registers=2, pre_norm=True)
        self.neck = nn.Sequential(nn.Conv2d(16, 4, 1), nn.GroupNorm(2, 4))
        self.backbone_like_head = nn.Linear(4, 2)


def build(model: nn.Module, **paramwise_cfg) -> dict[str, dict]:
    """Options of the optimiser by name of the parameter."""
    cfg = dict(
        type='OptimWrapper',
        constructor='mmrope.LayerDecayOptimWrapperConstructor',
        optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.2),
        paramwise_cfg=paramwise_cfg,
    )
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    names = {param: name for name, param in model.named_parameters()}
    return {names[param]: group for group in groups for param in group['params'] if param in names}


def test_rates_fall_with_depth() -> None:
    options = build(Detector(), decay_rate=0.5)
    expected = {
        'backbone.cls_token': 4,
        'backbone.reg_token': 4,
        'backbone.norm_pre.weight': 4,
        'backbone.pos_embed': 4,
        'backbone.patch_embed.proj.weight': 4,
        'backbone.blocks.0.attn.rope.freqs': 3,
        'backbone.blocks.1.gamma_1': 2,
        'backbone.blocks.2.mlp.fc1.weight': 1,
        'backbone.norm.weight': 0,
        'neck.0.weight': 0,
        'backbone_like_head.weight': 0,
    }
    for name, power in expected.items():
        assert options[name]['lr'] == pytest.approx(0.1 * 0.5**power), name


@pytest.mark.parametrize(
    ('full_rate_blocks', 'powers'),
    [(1, (2, 2, 1, 0)), (2, (2, 2, 0, 0)), (3, (0, 0, 0, 0))],
)
def test_blocks_at_the_full_rate_count_as_eomt_does(full_rate_blocks: int, powers: tuple[int, ...]) -> None:
    """The last block learns like the heads, and the embeddings like the first block."""
    options = build(Detector(), decay_rate=0.5, full_rate_blocks=full_rate_blocks)
    for name, group in options.items():
        found = re.match(r'backbone\.blocks\.(\d)', name)
        kept = name.startswith(('backbone.norm.', 'neck', 'backbone_like_head'))
        power = 0 if kept else powers[1 + int(found[1])] if found else powers[0]
        assert group['lr'] == pytest.approx(0.1 * 0.5**power), name


@pytest.mark.parametrize('paramwise_cfg', [dict(decay_rate=0.7), dict()])
def test_only_matrices_decay(paramwise_cfg: dict) -> None:
    model = Detector()
    options = build(model, **paramwise_cfg)
    assert set(options) == {name for name, _ in model.named_parameters()}
    decaying = {name for name, group in options.items() if group['weight_decay'] > 0}
    matrices = {name for name, param in model.named_parameters() if param.ndim > 1}
    assert decaying == {n for n in matrices if not n.endswith(('cls_token', 'reg_token', 'pos_embed', 'freqs'))}
    assert {options[name]['weight_decay'] for name in decaying} == {0.2}


def test_each_parameter_is_in_one_group() -> None:
    model = Detector()
    optimizer = build_optim_wrapper(
        model,
        dict(constructor='mmrope.LayerDecayOptimWrapperConstructor', optimizer=dict(type='SGD', lr=0.1)),
    ).optimizer
    inside = [param for group in optimizer.param_groups for param in group['params'] if param.numel() > 1 or param.ndim]
    assert len(inside) - len(set(inside)) == 0
    assert set(model.parameters()) <= set(inside)


def test_custom_keys_multiply_the_rate_and_set_the_decay() -> None:
    custom_keys = {
        'backbone': dict(lr_mult=0.1),
        'backbone.blocks.1': dict(lr_mult=2.0, decay_mult=3.0),
        'attn.rope.freqs': dict(decay_mult=1.0),
        'neck': dict(betas=(0.5, 0.6)),
    }
    options = build(Detector(), decay_rate=0.5, custom_keys=custom_keys)
    assert options['backbone.blocks.0.mlp.fc1.weight']['lr'] == pytest.approx(0.1 * 0.5**3 * 0.1)
    assert options['backbone.blocks.0.mlp.fc1.bias']['weight_decay'] == 0
    assert options['backbone.blocks.1.norm1.weight']['lr'] == pytest.approx(0.1 * 0.5**2 * 2)
    assert options['backbone.blocks.1.norm1.weight']['weight_decay'] == pytest.approx(0.6)
    assert options['backbone.blocks.2.attn.rope.freqs']['weight_decay'] == pytest.approx(0.2)
    assert options['neck.0.weight']['betas'] == (0.5, 0.6)
    assert options['neck.0.weight']['lr'] == pytest.approx(0.1)
    assert options['backbone_like_head.weight']['lr'] == pytest.approx(0.1 * 0.1)  # as MMEngine: a key is a substring


def test_frozen_parameters_are_left_out() -> None:
    model = Detector()
    model.neck.requires_grad_(False)
    assert not any(name.startswith('neck') for name in build(model))


def test_groups_are_logged_once_as_a_table(log: pytest.LogCaptureFixture) -> None:
    build(Detector(), decay_rate=0.5)
    tables = [record.message for record in log.records if 'Parameter groups' in record.message]
    assert len(tables) == 1
    rows = [line.split() for line in tables[0].splitlines()[2:]]
    parameters = sum(param.numel() for param in Detector().parameters())
    assert sum(int(row[1].replace(',', '')) for row in rows) == parameters
    assert len(rows) == 10  # 5 depths, with decay and without


@pytest.mark.parametrize(
    'paramwise_cfg, named',
    [
        (dict(decay_rate=0), 'decay_rate .* 0'),
        (dict(decay_rate=1.5), 'decay_rate .* 1.5'),
        (dict(full_rate_blocks=-1), 'full_rate_blocks .* -1'),
        (dict(full_rate_blocks=1.5), 'full_rate_blocks .* 1.5'),
        (dict(norm_decay_mult=0.0), 'norm_decay_mult'),
        (dict(layer_decay_rate=0.7), 'layer_decay_rate'),
    ],
)
def test_wrong_options_are_named(paramwise_cfg: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        build(Detector(), **paramwise_cfg)


def test_a_backbone_without_depths_is_named_with_the_constructor_to_take() -> None:
    model = nn.Module()
    model.backbone = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="get_layer_depth.*Linear.*constructor='DefaultOptimWrapperConstructor'"):
        build(model, decay_rate=0.5)
    with pytest.raises(ValueError, match='get_layer_depth.*NoneType'):
        build(nn.Linear(2, 2), decay_rate=0.5)


def test_optimiser_steps_follow_the_rates() -> None:
    model = Detector()
    torch.manual_seed(0)
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='mmrope.LayerDecayOptimWrapperConstructor',
            optimizer=dict(type='SGD', lr=1.0),
            paramwise_cfg=dict(decay_rate=0.5),
        ),
    )
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    wrapper.step()
    after = dict(model.named_parameters())
    for name, power in {'backbone.pos_embed': 4, 'backbone.blocks.2.mlp.fc1.weight': 1, 'neck.0.weight': 0}.items():
        torch.testing.assert_close(before[name] - after[name], torch.full_like(before[name], 0.5**power))


def test_a_schedule_without_layer_decay_spares_the_same_from_weight_decay() -> None:
    cfg = Config.fromfile(config_path('_base_/schedules/upernet_160k.py'))
    keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
    spared = tuple(key for key, options in keys.items() if options.decay_mult == 0)
    assert [name for name in NO_DECAY_NAMES if not any(key.endswith(name) for key in spared)] == []
