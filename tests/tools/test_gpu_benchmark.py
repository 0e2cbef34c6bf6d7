"""The commands that check and measure on a GPU, small and on the CPU, and the script that runs them."""

import argparse
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import gpu
import pytest
import torch

from mmrope.layers import kernels

pytest.importorskip('triton', reason='Triton comes with PyTorch for Linux')
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason='Triton interprets nothing where there is a GPU')

SESSION = Path(__file__).parents[2] / 'benchmarks/gpu_session.sh'
Run = Callable[..., list[dict]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command; return what it has recorded."""

    def call(*arguments: str) -> list[dict]:
        out = tmp_path / 'results.jsonl'
        gpu.main([*arguments, '--device', 'cpu', '--small', '--out', str(out)])
        entries = [json.loads(line) for line in out.read_text().splitlines()]
        assert all(entry['card'] and entry.get('ok') is not False for entry in entries)
        return [entry for entry in entries if entry['command'] == arguments[0]]

    return call


def test_the_card_is_stated_with_its_rates(run: Run) -> None:
    first, *rates = run('env')
    assert {'device', 'torch', 'timm', 'cudnn'} <= set(first)
    assert [entry.get('terabytes_per_second', entry.get('teraflops', 0)) > 0 for entry in rates] == [True] * 9
    # So small ones may take less time than their allocation does on a busy machine.
    assert sum('dot_product' in entry['kernel'] for entry in rates[3:]) >= 3


def test_kernels_and_definition_are_checked_in_each_dtype(run: Run) -> None:
    entries = run('check')
    assert {(x['model'], *x['switches'], x['dtype']) for x in entries} == {
        (model, way, dtype)
        for model in ('vit mixed', 'swin mixed')
        for way in ('interpreter', 'definition')
        for dtype in ('float32', 'float16', 'bfloat16')
    }
    assert all(0 < entry['freqs'] < 6e-2 and entry['maps'] > 0 for entry in entries)


@pytest.mark.parametrize('wrong', ['freqs', 'maps'])
def test_kernels_that_are_wrong_are_found(
    wrong: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotate, unrotate = kernels.rotate, kernels.unrotate
    if wrong == 'freqs':
        monkeypatch.setattr(kernels, 'unrotate', lambda *args: (unrotate(*args)[0], torch.zeros_like(args[1])))
    else:
        monkeypatch.setattr(kernels, 'rotate', lambda qkv, angles, *args: rotate(qkv, None, *args))
    monkeypatch.setattr(gpu, 'ERROR', {torch.float32: gpu.ERROR[torch.float32]})
    with pytest.raises(SystemExit, match='gpu.py check.*false'):
        run('check')
    entries = [json.loads(line) for line in (tmp_path / 'results.jsonl').read_text().splitlines()]
    assert [entry['ok'] for entry in entries] == [entry['switches'] == ['definition'] for entry in entries]
    assert all(entry[wrong] > 1e-3 for entry in entries if not entry['ok'])


def test_windows_in_parts_equal_all_windows(run: Run) -> None:
    entries = run('limits')
    assert [entry['windows'] for entry in entries] == [256] * 6
    assert {entry['dtype'] for entry in entries} == {'float32', 'bfloat16'}


def test_steps_run_and_their_plans_are_timed(run: Run) -> None:
    assert [entry['ok'] for entry in run('sync', 'swin')] == [None] * 6  # nothing waits for a CPU
    entries = run('plans', 'swin')
    assert len(entries) == 8 and all(len(entry['first']) == len(entry['again']) == 2 for entry in entries)


def test_tiles_of_the_kernels_are_timed(run: Run) -> None:
    entries = run('tune')
    assert [(x['kernel'], x.get('T')) for x in entries] == [
        ('rotate', None), ('unrotate', None), ('scale_gradients', None), ('rotate', 16), ('unrotate', 16),
        ('scale_gradients', 32),
    ]  # fmt: skip
    assert all(entry['terabytes_per_second'] > 0 for entry in entries)


@pytest.mark.parametrize('row', gpu.ROWS)
def test_a_row_is_measured_beside_its_peers_and_put_into_a_table(
    row, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, 'OURS', ('None', 'axial', 'mixed', 'mixed, kernels off, varlen off'))
    names = [*gpu.OURS, *gpu.PEERS[row]]
    entries = run('bench', row, '--rounds', '1', '--modes', 'inference')
    assert [entry['candidate'] for entry in entries] == names
    capsys.readouterr()
    gpu.main(['table', '--out', str(tmp_path / 'results.jsonl')])
    text = capsys.readouterr().out
    assert f'**{entries[0]["card"]}**' in text
    mixed, without = entries[2]['median'], entries[0]['median']
    cells = f'| {row}, mixed | 2 x 208 x 240 | inference | {1e3 * mixed:.2f} | 0% |  | {mixed / without:.3f} |'
    assert cells in text and text.count('x 208 x') == len(names)


@pytest.mark.slow
@pytest.mark.parametrize('compiled', [False, True])
def test_compiled_candidates_are_measured(compiled: bool, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, 'OURS', ('None', 'mixed, inductor'))
    entries = run('bench', 'vit_global', '--rounds', '1', '--modes', 'training', *['--compile'] * compiled)
    names = gpu.COMPILED if compiled else [*gpu.OURS, *gpu.PEERS['vit_global']]
    assert [entry['candidate'] for entry in entries] == list(names)


def test_the_time_of_a_step_is_split_up(run: Run) -> None:
    entries = run('profile', 'vit_global')
    assert [entry['rope'] for entry in entries] == [None, 'mixed']
    for entry in entries:
        assert entry['launches'] > 100 and entry['busy'] > 0
        seconds = [part['seconds'] for part in entry['largest']]
        assert seconds == sorted(seconds, reverse=True)


def test_an_unknown_row_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(['bench', 'resnet'])
    assert re.search(r'error: (?=.*\bresnet\b).*\bvit_windows\b', capsys.readouterr().err)


@pytest.fixture
def session(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run the script with stand-ins: `timeout` prints its arguments and fails, as one that has cut a command off."""
    for name, line in dict(timeout='printf "%s " "$@"; echo; exit 124', python='exit 0').items():
        (tmp_path / name).write_text(f'#!/bin/sh\n{line}\n')
        (tmp_path / name).chmod(0o755)
    variables = dict(PATH=f'{tmp_path}:{os.environ["PATH"]}', PYTHON='python', OUT=str(tmp_path / 'out'))

    def call(*parts: str) -> subprocess.CompletedProcess:
        command = ['bash', str(SESSION), *parts]
        return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, cwd=tmp_path)

    return call


def test_the_parts_of_a_session_take_ten_minutes_at_most_and_half_an_hour_together(
    session: Callable[..., subprocess.CompletedProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []

    def note(args: argparse.Namespace) -> None:
        """Write the command down."""
        called.append(args.command)

    monkeypatch.setattr(gpu, 'COMMANDS', dict.fromkeys(gpu.COMMANDS, note))
    total = 0
    for part in '12345':
        done = session(part)
        assert done.returncode == 1 and not done.stderr  # something was cut off
        calls = re.findall(r'^-k 5 (\d+) python benchmarks/gpu.py (.*)$', done.stdout, re.MULTILINE)
        assert 0 < sum(int(seconds) for seconds, _ in calls) <= 600
        total += sum(int(seconds) for seconds, _ in calls)
        for _, arguments in calls:
            gpu.main(arguments.split())
    assert total <= 1800
    assert set(called) == set(gpu.COMMANDS) - {'table'}
    assert session().stdout.count('== ') == len(called)
    assert re.search(r'PART\b.*\b1\b.*\b5\b.*\b6\b', session('6').stderr)
