import pytest
import torch

from mmrope import RoPEViT, SimpleFeaturePyramid


@pytest.mark.parametrize('grid', [(4, 4), (5, 9), (1, 1)])
@pytest.mark.parametrize('scales, num_outs', [((4, 2, 1, 0.5), 5), ((2, 1, 0.5), 4), ((1,), 1), ((8, 0.25), 2)])
def test_maps_have_the_promised_shape(grid: tuple[int, int], scales: tuple[int, ...], num_outs: int) -> None:
    neck = SimpleFeaturePyramid(16, 8, scales, num_outs)
    outs = neck((torch.zeros(2, 3, 1, 1), torch.randn(2, 16, *grid)))
    sizes = [tuple(-int(-side * scale // 1) for side in grid) for scale in scales]
    while len(sizes) < num_outs:
        sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
    assert [out.shape for out in outs] == [(2, 8, *size) for size in sizes]


@pytest.mark.parametrize('norm_cfg', [dict(type='BN'), None], ids=['BN', 'LayerNorm2d'])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=str)
def test_maps_lie_channel_by_channel(norm_cfg: dict | None, memory_format) -> None:
    neck = SimpleFeaturePyramid(16, 8, norm_cfg=norm_cfg)
    outs = neck(torch.randn(2, 16, 5, 9).to(memory_format=memory_format))
    assert all(out.is_contiguous() for out in outs)


def test_every_parameter_gets_a_gradient() -> None:
    neck = SimpleFeaturePyramid(16, 8)
    sum(out.square().mean() for out in neck(torch.randn(2, 16, 5, 9))).backward()
    assert all(param.grad.abs().sum() > 0 for param in neck.parameters())


def test_no_token_is_lost_at_odd_sizes() -> None:
    neck = SimpleFeaturePyramid(4, 4, scales=(0.5,), num_outs=1).eval()
    x = torch.randn(1, 4, 5, 5)
    y = x.clone()
    y[..., 4, 4] += 10
    assert not torch.equal(neck(x)[0], neck(y)[0])


@pytest.mark.parametrize('norm_cfg', [dict(type='BN'), dict(type='GN', num_groups=2), dict(type='mmrope.LayerNorm2d')])
def test_norms_come_from_the_config(norm_cfg: dict) -> None:
    kinds = {type(module).__name__ for module in SimpleFeaturePyramid(16, 8, norm_cfg=norm_cfg).modules()}
    assert {'BN': 'BatchNorm2d', 'GN': 'GroupNorm'}.get(norm_cfg['type'], 'LayerNorm2d') in kinds


def test_a_norm_is_the_one_that_mmcv_builds() -> None:
    build_norm_layer = pytest.importorskip('mmcv.cnn').build_norm_layer
    norm_cfg = dict(type='GN', num_groups=2, requires_grad=False)
    ours = SimpleFeaturePyramid(16, 8, scales=(1,), norm_cfg=norm_cfg).levels[0][1]
    assert repr(ours) == repr(build_norm_layer(norm_cfg, 8)[1])
    assert not any(param.requires_grad for param in ours.parameters())


@pytest.mark.parametrize(
    'arguments, named',
    [
        (dict(scales=(3, 1)), r'scales .* \(3, 1\)'),
        (dict(scales=(0, 1)), r'scales .* \(0, 1\)'),
        (dict(scales=()), r'scales .* \(\)'),
        (dict(scales=(1, 2)), r'scales .* \(1, 2\)'),
        (dict(num_outs=2), 'num_outs .* 2'),
        (dict(in_channels=6), 'in_channels .* 6'),
        (dict(norm_cfg=dict(type='Norm')), "norm_cfg .* 'Norm'"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SimpleFeaturePyramid(**{'in_channels': 16, **arguments})


def test_open_blocks_are_refused() -> None:
    arch = dict(embed_dims=16, depth=2, num_heads=2)
    backbone = RoPEViT(arch, open_blocks=1, final_norm=True, out_indices=(0,))
    with pytest.raises(ValueError, match='open_blocks .* got 1'):
        SimpleFeaturePyramid(16)(backbone(torch.randn(1, 3, 32, 32)))
