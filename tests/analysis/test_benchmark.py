"""Time and memory, side by side; and that the peers are what they are called."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmrope import RoPEViT
from mmrope.analysis import benchmark
from mmrope.analysis.benchmark import Measurement, Setting, build_candidate, compare, peak_memory
from mmrope.commands.skipping import Skips
from mmrope.registry import MODELS

ROOT = Path(__file__).parents[2]
TINY = dict(type='mmrope.RoPEViT', arch=dict(embed_dims=32, depth=2, num_heads=2), patch_size=8)


@pytest.fixture(scope='module')
def peers() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / 'benchmarks'))
    import peers

    yield peers
    sys.path.remove(str(ROOT / 'benchmarks'))


def test_the_papers_way_gives_mmropes_values(peers: ModuleType, close: Callable[..., None]) -> None:
    ours = RoPEViT(dict(embed_dims=32, depth=3, num_heads=2), patch_size=8, with_cls_token=True)
    theirs = peers.PaperRoPEViT(32, 3, 2, patch_size=8)
    for param in ours.parameters():
        nn.init.normal_(param, std=0.3)
    with torch.no_grad():
        theirs.patch_embed.load_state_dict(ours.patch_embed.proj.state_dict())
        theirs.cls_token.copy_(ours.cls_token)
        for i, (block, twin) in enumerate(zip(ours.blocks, theirs.blocks)):
            twin['norm1'].load_state_dict(block.norm1.state_dict())
            twin['norm2'].load_state_dict(block.norm2.state_dict())
            twin['mlp'].load_state_dict(block.mlp.state_dict())
            twin['qkv'].load_state_dict(block.attn.qkv.state_dict())
            twin['proj'].load_state_dict(block.attn.proj.state_dict())
            theirs.freqs[:, i] = block.attn.rope.freqs
            theirs.gammas[i] = torch.stack((block.gamma_1, block.gamma_2))
        images = torch.randn(2, 3, 40, 56)
        (maps,) = ours(images)
        tokens = theirs(images)[:, 1:]
    scale = maps.std()
    close(maps.flatten(2).transpose(1, 2) / scale, tokens / scale)


def test_candidates_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(benchmark, 'time_step', lambda model, images, setting: calls.append(model) or float(len(calls)))
    first, second = compare({'a': TINY, 'b': TINY}, Setting((16, 16)), rounds=3, memory=False)
    second_model, first_model = calls[:2]
    assert first_model is not second_model
    assert calls[2:] == [first_model, second_model, second_model, first_model, first_model, second_model]
    assert (first.times, second.times) == ([3.0, 6.0, 7.0], [4.0, 5.0, 8.0])  # the first round warms up
    assert (first.median, second.spread, second.throughput) == (6.0, 4 / 5, 1 / 5)


@pytest.mark.parametrize('mode', benchmark.MODES)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_step_follows_the_mode(mode, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting((16, 24), batch=2, mode=mode, dtype=dtype)
    seen = []

    @MODELS.register_module(name='Spy', force=True)
    class Spy(nn.Linear):
        def __init__(self) -> None:
            super().__init__(24, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            out = super().forward(x)
            seen.append((x.shape, out.dtype, torch.is_grad_enabled(), self.training))
            if out.requires_grad:
                out.register_hook(lambda grad: seen.append(grad.shape))
            return (out,)

    (measurement,) = compare({'spy': dict(type='mmrope.Spy')}, setting, rounds=1, memory=False)
    training = mode == 'training'
    forward = (torch.Size([2, 3, 16, 24]), getattr(torch, dtype), training, training)
    assert seen == [forward, torch.Size([2, 3, 16, 4])] * 2 if training else [forward] * 2
    assert measurement.parameters == 100 and len(measurement.times) == 1


def test_memory_is_that_of_one_step() -> None:
    """Of a model that makes 64 MiB, keeps half of it and frees the rest: at least that, and not much more."""
    wide = dict(type='mmrope.RoPEViT', arch=dict(embed_dims=64, depth=1, num_heads=2, mlp_ratio=64), patch_size=8)
    measured = peak_memory(wide, Setting((512, 512), mode='training'))
    hidden = 64 * 64 * 64 * 64 * 4  # tokens x channels x ratio x bytes: before and after GELU
    assert 2 * hidden < measured < 5 * hidden


@pytest.mark.parametrize('mode', benchmark.MODES)
def test_open_blocks_run_and_frozen_ones_need_no_backward(mode: str) -> None:
    setting, ran = Setting((16, 16), mode=mode), []
    opened = build_candidate(TINY | dict(open_blocks=1, final_norm=True, out_indices=()), setting)
    opened.blocks[-1].register_forward_hook(lambda *args: ran.append(args))
    benchmark.step(opened, torch.randn(1, 3, 16, 16), setting)
    assert len(ran) == 1 and (opened.blocks[-1].attn.qkv.weight.grad is not None) == (mode == 'training')
    frozen = build_candidate(TINY | dict(frozen_stages=len(opened.blocks)), setting)
    benchmark.step(frozen, torch.randn(1, 3, 16, 16), setting)
    assert all(param.grad is None for param in frozen.parameters())


def test_a_process_that_is_killed_for_its_memory_is_an_error() -> None:
    with pytest.raises(MemoryError, match='killed'):
        peak_memory(TINY, Setting((16, 16)), prepare=partial(exec, 'import os; os.kill(os.getpid(), 9)'))


def test_a_measurement_is_json(tmp_path: Path) -> None:
    measurement = Measurement('a', Setting((8, 8)), [1.0, 3.0, 2.0], 5, 7)
    Config(dict(measurement=measurement.as_dict())).dump(tmp_path / 'a.json')
    assert Config.fromfile(tmp_path / 'a.json').measurement.median == 2.0


def test_a_candidate_that_fails_is_left_out_and_the_others_are_measured() -> None:
    @MODELS.register_module(name='Failing', force=True)
    class Failing(nn.Linear):
        def __init__(self) -> None:
            super().__init__(24, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError('no')

    skips = Skips('tool')
    candidates = {
        'a': TINY,
        'unknown': dict(type='mmrope.Nothing'),
        'b': TINY,
        'failing': dict(type='mmrope.Failing'),
        'four channels': TINY | dict(in_channels=4),
    }
    done = compare(candidates, Setting((16, 16)), rounds=2, memory=False, skipping=skips.skipping)
    assert [(measurement.candidate, len(measurement.times)) for measurement in done] == [
        (name, 2) for name in ('a', 'b', 'four channels')
    ]
    assert [problem.partition(':')[0] for problem in skips.problems] == ['unknown', 'failing']


def test_candidates_are_not_initialised_from_the_hub() -> None:
    model = build_candidate(TINY | dict(init_cfg=dict(type='Pretrained', checkpoint='/nowhere')), Setting((16, 16)))
    assert isinstance(model, RoPEViT) and not model.training


def test_a_candidate_is_compiled_where_its_config_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(torch, 'compile', lambda model, **options: compiled.append(model) or model)
    models = [build_candidate(TINY | extra, Setting((16, 16))) for extra in ({}, {'compile': True})]
    assert compiled == models[1:]


def test_memory_is_measured_in_a_process_that_is_prepared() -> None:
    code = 'import torch, mmrope.registry as r; r.MODELS.register_module(name="Here", module=torch.nn.ReLU)'
    register = partial(exec, code)
    assert peak_memory(dict(type='mmrope.Here'), Setting((512, 512)), prepare=register) > 2**21  # its output has 3 MiB
    with pytest.raises(KeyError, match='Here'):
        peak_memory(dict(type='mmrope.Here'), Setting((64, 64)))


@pytest.mark.parametrize('name, value', [('mode', 'testing'), ('dtype', 'int8')])
def test_wrong_settings_are_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f'{name}.*{value}'):
        Setting((16, 16), **{name: value})
