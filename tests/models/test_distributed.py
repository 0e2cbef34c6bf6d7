"""Two processes with gloo compute what one does with both their batches, though each sees images of its own size."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from torch import Tensor, distributed, multiprocessing, nn
from torch.distributed import fsdp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh

from mmrope import RoPESwin, RoPEViT, SimpleFeaturePyramid
from mmrope.layers import RoPE

# of each rank and step: height and width, unlike between ranks, and a batch of one beside one of two
BATCHES = (((2, 3, 64, 96), (1, 3, 33, 130)), ((2, 3, 17, 40), (2, 3, 80, 48)), ((1, 3, 5, 200), (2, 3, 64, 64)))
BACKBONES: dict[str, Callable[[], nn.Module]] = {
    'vit_mixed': lambda: RoPEViT(VIT, window_size=3, global_attn_indexes=(1,), out_indices=(1,)),
    'vit_axial_ape': lambda: RoPEViT(VIT, rope='axial', ape=True, img_size=64, with_cp=True),
    'vit_pyramid': lambda: nn.Sequential(RoPEViT(VIT), Last(), SimpleFeaturePyramid(32, 16)),
    'vit_first_block': lambda: RoPEViT(VIT, out_indices=(0,), final_norm=True),
    'swin_first_stage': lambda: RoPESwin(SWIN, drop_path_rate=0.0, out_indices=(0,)),
    'swin_mixed': lambda: RoPESwin(SWIN, drop_path_rate=0.0, out_indices=(0, 1)),
    'swin_mixed_rpb': lambda: RoPESwin(SWIN, drop_path_rate=0.0, rpb=True, window_size=4, out_indices=(0, 1)),
}
VIT = dict(embed_dims=32, depth=2, num_heads=4)
SWIN = dict(embed_dims=16, depths=(2, 2), num_heads=(2, 4))


class Last(nn.Module):
    """Hand the last map on."""

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        return maps[-1]


class Loss(nn.Module):
    """A backbone and the mean over the images of what its maps come to."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = BACKBONES[name]().train()

    def forward(self, images: Tensor) -> Tensor:
        maps = self.backbone(images)
        return sum(weight * (x.tanh() ** 2).mean() for weight, x in enumerate(maps, start=1))


def batch(step: int, rank: int) -> Tensor:
    return torch.randn(BATCHES[step][rank], generator=torch.Generator().manual_seed(10 * step + rank))


def steps(model: nn.Module, loss_of: Callable[[int], Tensor]) -> list[dict[str, Tensor]]:
    """Train some steps; list the loss and the gradients of each."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    kept = []
    for step in range(len(BATCHES)):
        optimizer.zero_grad()
        loss = loss_of(step)
        loss.backward()
        named = {name.removeprefix('module.'): param.grad for name, param in model.named_parameters()}
        kept.append({'loss': loss.detach(), **{name: grad.clone() for name, grad in named.items() if grad is not None}})
        optimizer.step()
    return kept


def in_two_processes(run: Callable[..., None], *arguments: str) -> None:
    """Run a function of this module, from a server: autograd's threads, which other tests start, cannot be forked."""
    multiprocessing.get_context('forkserver').set_forkserver_preload([__name__])
    multiprocessing.start_processes(run, arguments, nprocs=2, start_method='forkserver')


def train_rank(rank: int, name: str, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{folder}/group', rank=rank, world_size=2)
    model = MMDistributedDataParallel(Loss(name), broadcast_buffers=False, find_unused_parameters=False)
    torch.save(steps(model, lambda step: model(batch(step, rank))), f'{folder}/{rank}.pth')
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.parametrize('name', BACKBONES)
def test_two_processes_have_the_losses_and_gradients_of_one(
    name: str, tmp_path: Path, close: Callable[..., None]
) -> None:
    """The global loss is the mean of the ranks', as everywhere with DistributedDataParallel."""
    in_two_processes(train_rank, name, str(tmp_path))
    ranks = [torch.load(tmp_path / f'{rank}.pth') for rank in range(2)]
    model = Loss(name)
    expected = steps(model, lambda step: (model(batch(step, 0)) + model(batch(step, 1))) / 2)
    assert len(expected) == len(BATCHES)
    trained = {name for name, param in model.named_parameters() if param.requires_grad}
    for step, one in enumerate(expected):
        assert one.keys() == {'loss', *trained}
        close((ranks[0][step].pop('loss') + ranks[1][step].pop('loss')) / 2, one.pop('loss'))
        for rank in ranks:
            assert rank[step].keys() == one.keys()
            for key in one:
                close(rank[step][key], one[key])
    assert max(grad.abs().max() for grad in expected[0].values()) > 1e-3


def shard(name: str) -> nn.Module:
    """Shard a model block by block; frequencies in float32 beside half precision are sharded by themselves."""
    model = MODELS_TO_SHARD[name]()
    for module in model.modules():
        if isinstance(module, RoPE) and 'bfloat16' in name:
            fsdp.fully_shard(module, mesh=init_device_mesh('cpu', (2,)))
    for block in model.blocks:
        fsdp.fully_shard(block, mesh=init_device_mesh('cpu', (2,)))
    fsdp.fully_shard(model, mesh=init_device_mesh('cpu', (2,)))
    if 'meta' in name:
        model.to_empty(device='cpu')
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(model, seeded(lambda: RoPEViT(VIT, rope='axial')).state_dict(), options=options)
    return model


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.device('meta'):
        return make()


MODELS_TO_SHARD = {
    'mixed': lambda: seeded(lambda: RoPEViT(VIT, window_size=3, global_attn_indexes=(1,))),
    'axial from meta': lambda: on_meta(lambda: RoPEViT(VIT, rope='axial')),
    'mixed in bfloat16': lambda: seeded(lambda: RoPEViT(VIT)).bfloat16(),
}
SINGLE = {**MODELS_TO_SHARD, 'axial from meta': lambda: seeded(lambda: RoPEViT(VIT, rope='axial'))}


def train_shard(rank: int, name: str, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{folder}/group', rank=rank, world_size=2)
    model = shard(name)
    train_steps(model)
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    torch.save(state, f'{folder}/{rank}.pth')
    distributed.barrier()
    distributed.destroy_process_group()


def train_steps(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    dtype = model.patch_embed.proj.weight.dtype
    for step in range(2):
        model(batch(step, 0).to(dtype))[0].float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.skipif(torch.__version__ < '2.9', reason='fully_shard of PyTorch 2.8 and before does not run on the CPU')
@pytest.mark.parametrize('name', MODELS_TO_SHARD)
def test_sharded_models_train_as_whole_ones(name: str, tmp_path: Path) -> None:
    in_two_processes(train_shard, name, str(tmp_path))
    model = SINGLE[name]()
    train_steps(model)
    ours, whole = torch.load(tmp_path / '0.pth'), model.state_dict()
    assert ours.keys() == whole.keys()
    tolerance = 3e-2 if 'bfloat16' in name else 1e-5
    for key, value in whole.items():
        assert ours[key].dtype == value.dtype
        torch.testing.assert_close(ours[key].float(), value.float(), rtol=0, atol=tolerance)
