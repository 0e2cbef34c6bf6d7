"""``mmrope benchmark`` writes a table, JSON and a plot, and names mistakes."""

import argparse
import json
import pickle
import re
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.config import Config

from mmrope.analysis.benchmark import DTYPES, MODES, Measurement, Setting, build_candidate
from mmrope.commands import benchmark
from mmrope.commands.main import main
from mmrope.commands.skipping import Skips

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/mask_rcnn_rope_mixed_vit_tiny_digits.py'


def bench(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / 'tools/benchmark.py'), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)


def test_two_candidates_side_by_side(tmp_path: Path) -> None:
    (tmp_path / 'axial.py').write_text(f'_base_ = {str(CONFIG)!r}\nmodel = dict(backbone=dict(rope="axial"))')
    arguments = ['--sizes', '32x64', '--modes', 'training', '--rounds', '2', '--out', str(tmp_path)]
    done = bench(str(CONFIG), str(tmp_path / 'axial.py'), *arguments)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / 'configs.json').read_text())
    assert {'device', 'threads', 'torch', 'timm', 'mmrope'} <= set(result['environment'])
    measured = [(m['candidate'], m['setting']['size'], m['setting']['mode']) for m in result['measurements']]
    assert measured == [(name, [32, 64], 'training') for name in (CONFIG.stem, 'axial')]
    assert all(len(m['times']) == 2 and m['median'] > 0 and m['memory'] > 0 for m in result['measurements'])
    (row,) = (line for line in done.stdout.splitlines() if line.startswith('| axial |'))
    first, last = (measurement['median'] for measurement in result['measurements'])
    assert f'| {last:.3f} |' in row and f'| {last / first:.3f} |' in row


@pytest.mark.slow
def test_each_candidate_is_measured_compiled_too(tmp_path: Path) -> None:
    done = bench(str(CONFIG), '--sizes', '32', '64', '--compile', '--rounds', '2', '--out', str(tmp_path))
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / 'configs.json').read_text())['measurements']
    names = [(CONFIG.stem, True), (f'{CONFIG.stem}, compiled', False)]
    assert [(m['candidate'], m['memory'] is not None) for m in measured] == names * 2


def test_a_bad_config_is_named_and_the_others_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'none.py').write_text('model = dict(type="Wrapper")')
    arguments = ['--sizes', '16', '24', '--rounds', '1', '--no-memory', '--out', str(tmp_path / 'out')]
    with pytest.raises(SystemExit) as stop:
        main(['benchmark', str(tmp_path / 'none.py'), str(CONFIG), *arguments])
    assert stop.value.code.startswith('mmrope benchmark: 1 ')
    assert re.search(r'skipped: .*none\.py', capsys.readouterr().err)
    result = json.loads((tmp_path / 'out/configs.json').read_text())
    assert [(m['candidate'], m['setting']['size']) for m in result['measurements']] == [
        (CONFIG.stem, [16, 16]), (CONFIG.stem, [24, 24]),
    ]  # fmt: skip
    assert (tmp_path / 'out/configs.png').stat().st_size > 10_000
    with pytest.raises(SystemExit):
        main(['benchmark', str(CONFIG), *arguments])
    assert re.search('configs.json .*--overwrite', capsys.readouterr().err)
    assert json.loads((tmp_path / 'out/configs.json').read_text()) == result


@pytest.mark.parametrize(
    'arguments, named',
    [
        ([], '(?i:config).* --suite'),
        ([str(CONFIG), '--suite', 'benchmarks/cpu.py'], '(?i:config).* --suite'),
        ([str(CONFIG), '--sizes', '0x32'], "--sizes.*'0x32'"),
        ([str(CONFIG), '--rounds', '0'], "--rounds.*'0'"),
        ([str(CONFIG), '--device', 'abacus'], r'--device\W+abacus\b'),
        ([str(CONFIG), str(CONFIG)], f'CONFIG.*{CONFIG.name}.*{CONFIG.name}'),
        ([str(CONFIG), '--rows', 'swin'], '--rows .*--suite'),
        (['--suite', 'benchmarks/cpu.py', '--modes', 'training'], '--sizes and --modes .*--suite'),
        (['--suite', 'configs/_base_/default_runtime.py'], '--suite configs/.*rows'),
        (['--suite', 'benchmarks/cpu.py', '--rows', 'resnet'], '--rows .*vit_global.*resnet'),
        (['configs/nothing.py'], 'nothing.py'),
        (['configs/_base_/default_runtime.py'], 'default_runtime.py.*model.backbone'),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: list, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    with pytest.raises(SystemExit):
        main(['benchmark', *arguments, '--out', str(tmp_path)])
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.match(f'mmrope benchmark: error: .*{named}', error), error
    assert not list(tmp_path.iterdir())


SUITE = """
candidates = dict(a=dict(type='mmrope.RoPEViT'), b=dict(type='mmrope.RoPESwin'), c=dict(type='mmrope.RoPESwin'))
rows = dict(one=dict(candidates=['a', 'c'], sizes={sizes}, modes={modes}, batch=4), two=dict(candidates=['b']))
"""


def suite(folder: Path, sizes: list[str], modes: list[str]) -> str:
    (folder / 'suite.py').write_text(SUITE.format(sizes=sizes, modes=modes))
    return str(folder / 'suite.py')


def test_a_suite_says_candidates_sizes_modes_and_batch_of_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, 'path', [*sys.path])
    measured = []
    monkeypatch.setattr(benchmark, 'measure', lambda name, row, setting, *_: measured.append((name, row, setting)))
    path = suite(tmp_path, ['32', '16x24'], ['training', 'inference'])
    main(['benchmark', '--suite', path, '--rows', 'one', '--out', str(tmp_path / 'out')])
    assert [(name, list(row['candidates'])) for name, row, _ in measured] == [('one', ['a', 'c'])] * 4
    sizes = [(32, 32), (16, 24)]
    assert [setting for _, _, setting in measured] == [
        Setting(size, 4, mode) for mode in ('training', 'inference') for size in sizes
    ]


@pytest.mark.parametrize(
    'sizes, modes, named', [(['32', '3x'], ['training'], "'3x'"), (['32'], ['testing'], "mode.*'testing'")]
)
def test_a_mistake_in_a_suite_is_one_sentence(
    sizes: list[str],
    modes: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, 'path', [*sys.path])
    with pytest.raises(SystemExit):
        main(['benchmark', '--suite', suite(tmp_path, sizes, modes), '--rows', 'one', '--out', str(tmp_path / 'out')])
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.match(f'mmrope benchmark: error: --suite.*{named}', error), error


def test_a_row_without_a_part_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, 'path', [*sys.path])
    with pytest.raises(SystemExit):
        main(['benchmark', '--suite', suite(tmp_path, ['32'], ['training']), '--out', str(tmp_path / 'out')])
    assert 'row two has no sizes and no modes' in capsys.readouterr().err


def test_every_row_of_the_suites_is_complete() -> None:
    config = Config.fromfile(ROOT / 'benchmarks/cpu.py', import_custom_modules=False)
    used = {name for row in config.rows.values() for name in row.candidates}
    assert used == set(config.candidates)
    assert all(row.sizes and set(row.modes) <= set(MODES) for row in config.rows.values())


def test_the_choices_are_those_of_the_library() -> None:
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    choices = {action.dest: action.choices for action in parser._actions}
    assert (set(choices['modes']), set(choices['dtype'])) == (set(MODES), set(DTYPES))


def test_a_table_has_no_ratio_of_memory_where_the_first_has_none() -> None:
    setting = Setting((16, 24))
    table = benchmark.markdown([Measurement('a', setting, [2.0]), Measurement('b', setting, [1.0], memory=2**20)])
    assert table.splitlines()[-2:] == [
        '| a | 2.000 | 0% | 0.50 | 1.000 |  |  |',
        '| b | 1.000 | 0% | 1.00 | 0.500 | 1 MiB |  |',
    ]


def config_of(folder: Path, text: str) -> str:
    (folder / 'config.py').write_text(text)
    return str(folder / 'config.py')


def candidate(path: str) -> dict:
    """Return the only candidate, as another process gets it."""
    rows, _ = benchmark.read_configs(argparse.Namespace(configs=[path], sizes=[], modes=[]), Skips('tool'))
    ((_, cfg),) = rows['configs']['candidates'].items()
    return pickle.loads(pickle.dumps(cfg))


def test_backbones_of_configs_and_wrappers(tmp_path: Path) -> None:
    assert candidate('mask_rcnn_rope_mixed_swin_t_coco')['type'] == 'mmrope.RoPESwin'
    wrapped = config_of(tmp_path, 'model = dict(type="Wrapper", model=dict(backbone=dict(type="A")))')
    assert candidate(wrapped) == dict(type='A', _scope_='mmrope')


HOST_CONFIGS = {
    'scope': "default_scope = 'mmdet'\nmodel = dict(type='RetinaNet', backbone={backbone})",
    'own package': "model = dict(type='RetinaNet', backbone={backbone})",
    'class': 'from mmdet.models import SwinTransformer\nmodel = dict(backbone={backbone})',
}


@pytest.mark.parametrize(
    'config, kind',
    [('scope', "'SwinTransformer'"), ('own package', "'mmdet.SwinTransformer'"), ('class', 'SwinTransformer')],
)
def test_backbones_of_the_hosts_are_built_as_their_configs_name_them(tmp_path: Path, config: str, kind: str) -> None:
    from mmdet.models import SwinTransformer

    backbone = f'dict(type={kind}, embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))'
    cfg = candidate(config_of(tmp_path, HOST_CONFIGS[config].format(backbone=backbone)))
    assert isinstance(build_candidate(cfg, Setting((16, 16))), SwinTransformer)


def test_the_same_name_is_each_library_s_own(tmp_path: Path) -> None:
    models = []
    for scope in ('mmdet', 'mmseg'):
        settings = dict(type='SwinTransformer', embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))
        text = f'default_scope = {scope!r}\nmodel = dict(backbone={settings!r})'
        models.append(build_candidate(candidate(config_of(tmp_path, text)), Setting((16, 16))))
    assert [type(model).__module__.partition('.')[0] for model in models] == ['mmdet', 'mmseg']


def test_rates_divide_the_flops_by_the_time_of_all_calls() -> None:
    measure = runpy.run_path(str(ROOT / 'benchmarks/rates.py'))['measure']
    seconds, rate = map(float, measure(time.sleep, [(0.01,), (0.03,)], flops=int(4e9)).split(' | '))
    assert seconds >= 0.04
    assert rate == pytest.approx(4 / seconds, rel=0.02)
