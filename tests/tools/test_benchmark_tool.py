"""The benchmark tool writes a table, JSON and a plot, and names what is wrong."""

import json
import re
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import load_tool

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/mask_rcnn_rope_mixed_vit_tiny_digits.py'


def bench(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / 'tools/benchmark.py'), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)


def test_two_candidates_at_two_sizes(tmp_path):
    (tmp_path / 'axial.py').write_text(f'_base_ = {str(CONFIG)!r}\nmodel = dict(backbone=dict(rope="axial"))')
    arguments = ['--sizes', '32', '32x64', '--modes', 'inference', 'training', '--rounds', '2', '--out', str(tmp_path)]
    done = bench(str(CONFIG), str(tmp_path / 'axial.py'), *arguments)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / 'configs.json').read_text())
    assert {'device', 'threads', 'torch', 'timm', 'mmrope'} <= set(result['environment'])
    measured = [(m['candidate'], m['setting']['size'], m['setting']['mode']) for m in result['measurements']]
    names = (CONFIG.stem, 'axial')
    assert measured == [(n, s, m) for m in ('inference', 'training') for s in ([32, 32], [32, 64]) for n in names]
    assert all(len(m['times']) == 2 and m['median'] > 0 and m['memory'] > 0 for m in result['measurements'])
    rows = [line for line in done.stdout.splitlines() if line.startswith('| axial |')]
    last = result['measurements'][-1]
    ratio = last['median'] / result['measurements'][-2]['median']
    assert len(rows) == 4 and f'| {last["median"]:.3f} |' in rows[-1] and f'| {ratio:.3f} |' in rows[-1]
    assert (tmp_path / 'configs.png').stat().st_size > 10_000


@pytest.mark.slow
def test_each_candidate_is_measured_compiled_too(tmp_path):
    done = bench(str(CONFIG), '--sizes', '32', '64', '--compile', '--rounds', '2', '--out', str(tmp_path))
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / 'configs.json').read_text())['measurements']
    names = [(CONFIG.stem, True), (f'{CONFIG.stem}, compiled', False)]
    assert [(m['candidate'], m['memory'] is not None) for m in measured] == names * 2


def test_a_bad_config_is_named_and_the_others_are_measured(tmp_path, capsys):
    (tmp_path / 'none.py').write_text('model = dict(type="Wrapper")')
    arguments = ['--sizes', '16', '24', '--rounds', '1', '--no-memory', '--out', str(tmp_path / 'out')]
    main = load_tool('benchmark').main
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / 'none.py'), str(CONFIG), *arguments])
    assert stop.value.code.startswith('benchmark.py: 1 skipped')
    assert re.search(r'skipped: .*none\.py', capsys.readouterr().err)
    result = json.loads((tmp_path / 'out/configs.json').read_text())
    assert [(m['candidate'], m['setting']['size']) for m in result['measurements']] == [
        (CONFIG.stem, [16, 16]), (CONFIG.stem, [24, 24]),
    ]  # fmt: skip
    with pytest.raises(SystemExit):
        main([str(CONFIG), *arguments])
    assert 'configs.json exists: --overwrite' in capsys.readouterr().err
    assert json.loads((tmp_path / 'out/configs.json').read_text()) == result


@pytest.mark.parametrize(
    'arguments, named',
    [
        ([], 'either configs or --suite'),
        ([str(CONFIG), '--suite', 'benchmarks/cpu.py'], 'either configs or --suite'),
        ([str(CONFIG), '--sizes', '0x32'], "HEIGHTxWIDTH.*'0x32'"),
        ([str(CONFIG), '--rounds', '0'], "at least 1.*'0'"),
        ([str(CONFIG), '--device', 'abacus'], '--device abacus'),
        ([str(CONFIG), str(CONFIG)], 'different names'),
        ([str(CONFIG), '--rows', 'swin'], '--rows chooses from a --suite'),
        (['--suite', 'benchmarks/cpu.py', '--rows', 'resnet'], '--rows must be of .*vit_global.*resnet'),
        (['configs/nothing.py'], 'nothing.py'),
        (['configs/_base_/default_runtime.py'], 'model.backbone.*default_runtime.py'),
    ],
)
def test_what_is_wrong_is_named(arguments, named, tmp_path):
    done = bench(*arguments, '--out', str(tmp_path))
    assert done.returncode != 0 and 'Traceback' not in done.stderr

    assert re.search(named, done.stderr), done.stderr
    assert not list(tmp_path.iterdir())


def test_rates_divide_the_flops_by_the_time_of_all_calls():
    measure = runpy.run_path(str(ROOT / 'benchmarks/rates.py'))['measure']
    seconds, rate = map(float, measure(time.sleep, [(0.01,), (0.03,)], flops=int(4e9)).split(' | '))
    assert 0.04 <= seconds < 0.1
    assert rate == pytest.approx(4 / seconds, rel=0.02)
