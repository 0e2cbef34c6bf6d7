"""tools/test_resolutions.py: it measures what tools/test.py measures, once a size, however often it is called."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner

from mmrope.commands.runner import attend_without_plans, has_accelerator
from tests.helpers.tiny import ROOT, figures, isolated, load_tool, python_path

RESIZE = "dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64), keep_ratio=True)"
CLASSIFICATION = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(num_classes=3, mean=[127.] * 3, std=[60.] * 3),
    backbone=dict(
        type='mmrope.RoPESwin', arch=dict(embed_dims=16, depths=(2, 1), num_heads=(1, 2)), rope=None, rpb=True,
        patch_size=2, window_size=4, out_indices=(1,), out_type='avg_featmap'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=32))
test_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root='{data}', pipeline=[
        dict(type='LoadImageFromFile'), dict(type='Resize', scale=(16, 16)), dict(type='PackInputs')]))
test_evaluator = [dict(type='Accuracy', topk=(1, 2)), dict(type='SingleLabelMetric')]
test_cfg = dict(type='TestLoop')
"""
PIPELINE = 'test_dataloader.dataset.pipeline.1'


@pytest.fixture(scope='module')
def tools() -> SimpleNamespace:
    return SimpleNamespace(**{name: load_tool(name).main for name in ('train', 'test', 'test_resolutions')})


@pytest.fixture(scope='module')
def models(
    write_config: Callable[..., str], tools: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, str]]:
    """Configs and checkpoints of all three kinds, good enough that not everything they say is wrong."""
    folder = tmp_path_factory.mktemp('models')
    found = {}
    for kind, checkpoint in (('detection', 'epoch_1.pth'), ('segmentation', 'iter_2.pth')):
        config = Path(write_config(folder, kind))
        if kind == 'segmentation':
            config.write_text(config.read_text().replace("dict(type='LoadImageFromFile')", RESIZE))
        with isolated():
            tools.train([str(config), '--work-dir', str(folder / kind)])
        found[kind] = str(config), str(folder / kind / checkpoint)
    state = torch.load(found['segmentation'][1], weights_only=False)
    torch.nn.init.normal_(state['state_dict']['decode_head.conv_seg.weight'])  # or all pixels would be one class
    torch.save(state, found['segmentation'][1])
    found['classification'] = make_classifier(folder)
    return found


def make_classifier(folder: Path) -> tuple[str, str]:
    """A Swin with a bias table, random but large weights, and images whose labels it mostly gets right at 16 pixels."""
    data, config = folder / 'classes', folder / 'classification.py'
    config.write_text(CLASSIFICATION.replace('{data}', str(data)))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(Config.fromfile(config).model).eval()
    for name, param in model.named_parameters():
        if 'table' in name or 'weight' in name and param.dim() == 2:
            torch.nn.init.normal_(param, std=1.0)
    rng = np.random.default_rng(0)
    for label in range(3):
        (data / str(label)).mkdir(parents=True)
    for index in range(30):
        image = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (48, 48), interpolation=cv2.INTER_CUBIC)
        small = torch.from_numpy(cv2.resize(image, (16, 16)).transpose(2, 0, 1).astype(np.float32))[None]
        with torch.no_grad():
            scores = model.head.fc(model.extract_feat((small - 127) / 60)[-1])
        label = int(scores.argmax()) if index % 10 else index % 3
        cv2.imwrite(str(data / str(label) / f'{index}.png'), image)
    torch.save(dict(state_dict=model.state_dict()), folder / 'classification.pth')
    return str(config), str(folder / 'classification.pth')


def measured_by_test(tools: SimpleNamespace, model: tuple[str, str], work_dir: Path, *options: str) -> dict[str, float]:
    """The metrics that tools/test.py writes."""
    with isolated():
        tools.test([*model, '--work-dir', str(work_dir), *(['--cfg-options', *options] if options else [])])
    (path,) = work_dir.glob('*/*.json')
    return {key: value for key, value in json.loads(path.read_text()).items() if not key.endswith('time')}


def results_in(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    results = json.loads((folder / 'resolutions.json').read_text())
    return {(result['label'], result['size']): result for result in results}


CASES = {
    'detection': {
        '64': [],
        '96': [f'{PIPELINE}.scale=(96,96)'],
        '48x80': [f'{PIPELINE}.scale=(80,48)', f'{PIPELINE}.keep_ratio=False'],
    },
    'segmentation': {'64': [], '32': [f'{PIPELINE}.scale=(32,32)'], 'short:40': [f'{PIPELINE}.scale=(4000,40)']},
    'classification': {
        '16': [],
        '24': [f'{PIPELINE}.scale=(24,24)', 'model.backbone.window_size=6'],
        '8': [f'{PIPELINE}.scale=(8,8)', 'model.backbone.window_size=2'],
    },
}
METRICS = {'detection': 'coco/bbox_mAP', 'segmentation': 'mIoU', 'classification': 'accuracy/top1'}


@pytest.mark.parametrize('kind', CASES)
def test_every_size_is_measured_as_by_the_test_tool(
    tools: SimpleNamespace,
    models: dict[str, tuple[str, str]],
    tmp_path: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """At the config's own size and at others, whose options are written here by hand; one checkpoint is read once."""
    loads: list[str] = []
    load = Runner.load_checkpoint
    monkeypatch.setattr(
        Runner, 'load_checkpoint', lambda self, *args, **kwargs: loads.append('') or load(self, *args, **kwargs)
    )
    sizes = list(reversed(CASES[kind]))  # not the model's own first
    with isolated():
        tools.test_resolutions([*models[kind], '--sizes', *sizes, '--scale-windows', '--work-dir', str(tmp_path)])
    assert len(loads) == 1
    out = capsys.readouterr().out
    results = results_in(tmp_path)
    assert list(results) == [(kind, size) for size in sizes]
    for number, (size, options) in enumerate(CASES[kind].items()):
        expected = measured_by_test(tools, models[kind], tmp_path / str(number), *options)
        assert results[kind, size]['metrics'] == pytest.approx(expected, abs=1e-6)
        assert f'{expected[METRICS[kind]]:.4g}' in out
        assert 0 < results[kind, size]['ms_per_image'] < 60_000
    values = {results[kind, size]['metrics'][METRICS[kind]] for size in sizes}
    assert len(values) > 1 and max(values) > 0  # or nothing would have been compared
    rows = list(csv.DictReader((tmp_path / 'resolutions.csv').open()))
    assert [float(row[METRICS[kind]]) for row in rows] == [
        results[kind, size]['metrics'][METRICS[kind]] for size in sizes
    ]
    assert (tmp_path / 'resolutions.png').read_bytes()[:4] == b'\x89PNG'


def test_an_interrupted_sweep_measures_the_rest_only(
    tools: SimpleNamespace, models: dict[str, tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ['--sizes', '64', '32', '48', '--work-dir', str(tmp_path), '--labels', 'a', 'b']
    pairs = [*models['detection'], *models['segmentation']]
    tests: list[int] = []
    test = Runner.test

    def interrupted(self: Runner) -> dict[str, float]:
        if len(tests) == 4:
            raise KeyboardInterrupt
        tests.append(1)
        return test(self)

    with monkeypatch.context() as patched, isolated():
        patched.setattr(Runner, 'test', interrupted)
        with pytest.raises(SystemExit) as exit:
            tools.test_resolutions([*pairs, *arguments])
        assert exit.value.code == 130
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / 'results').iterdir()}
    assert len(kept) == 4 and all(path.suffix == '.json' for path in kept)

    monkeypatch.setattr(Runner, 'test', lambda self: tests.append(1) or test(self))
    for _ in range(2):  # a third call has nothing left to do
        with isolated():
            tools.test_resolutions([*pairs, *arguments])
        assert len(tests) == 6
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert list(results_in(tmp_path)) == [(label, size) for label in 'ab' for size in ('64', '32', '48')]

    moved = shutil.copy(models['segmentation'][1], str(tmp_path / 'moved.pth'))  # the same weights: nothing to measure
    with isolated():
        tools.test_resolutions([models['segmentation'][0], moved, '--sizes', '64', '--work-dir', str(tmp_path)])
    assert len(tests) == 6 and {result['checkpoint'] for result in results_in(tmp_path).values()} == {moved}

    state = torch.load(models['segmentation'][1], weights_only=False)
    other = tmp_path / 'other.pth'  # other weights, or another config, are another measurement
    state['state_dict']['decode_head.conv_seg.bias'] += 1
    torch.save(state, other)
    for changed in ([models['segmentation'][0], str(other)], [*models['segmentation']]):
        option = [] if changed[1] == str(other) else ['--cfg-options', 'test_evaluator.iou_metrics=[mDice]']
        before = len(tests)
        with isolated():
            tools.test_resolutions([*changed, '--sizes', '64', '--work-dir', str(tmp_path), *option])
        assert len(tests) == before + 1


def test_equal_sizes_lie_at_one_place_of_the_plot(
    tools: SimpleNamespace, models: dict[str, tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of square images 32 makes 32 x 32; they are placed by the size that the model sees."""
    drawn = figures(monkeypatch)
    sizes = ['32', '32x32', '32x48', 'short:48']
    tools.test_resolutions([*models['segmentation'], '--sizes', *sizes, '--work-dir', str(tmp_path)])
    places = [(result['size'], result['pixels']) for result in json.loads((tmp_path / 'resolutions.json').read_text())]
    assert places == [('32', 32), ('32x32', 32), ('32x48', pytest.approx((32 * 48) ** 0.5)), ('short:48', 48)]
    axis = drawn[-1].axes[0]
    ticks = [text.get_text() for text in axis.get_xticklabels()]
    assert ticks == ['32\n32x32', '32x48', 'short:48']
    (curve,) = [line for line in axis.get_lines() if line.get_linestyle() == '-']
    assert list(curve.get_xdata()) == list(axis.get_xticks())
    assert [axis.get_ylabel() for axis in drawn[-1].axes] == ['mIoU (%)', 'time (ms / image)']
    assert drawn[-1].axes[1].get_ylim()[0] == 0


def test_a_model_and_a_size_that_fail_are_named_and_the_rest_is_measured(
    tools: SimpleNamespace,
    models: dict[str, tuple[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from mmrope.commands.resolutions import SizedTest

    run = SizedTest.run

    def fail(self: SizedTest, measurement: Any) -> dict[str, Any]:
        if (measurement.model.label, measurement.size.text) == ('segmenter', '48'):
            raise RuntimeError('not enough memory')
        return run(self, measurement)

    monkeypatch.setattr(SizedTest, 'run', fail)
    pairs = [*models['detection'], 'none.py', 'none.pth', *models['segmentation']]
    labels = ['--labels', 'detector', 'missing', 'segmenter']
    with pytest.raises(SystemExit) as stop:
        tools.test_resolutions([*pairs, '--sizes', '48', '64', '--work-dir', str(tmp_path), *labels])
    assert re.match(r'test_resolutions\.py: 2\b.*\b3\b', stop.value.code)
    error = capsys.readouterr().err
    for words in (r'missing\b.*config.* none\.py', r'segmenter\b.*\b48\b.*not enough memory'):
        assert re.search(f'test_resolutions.py: skipped: {words}', error)
    assert list(results_in(tmp_path)) == [('detector', '48'), ('detector', '64'), ('segmenter', '64')]


class Code:
    """Makes a folder when Python's own pickle loads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.makedirs, (self.folder, 0o777, True)


def test_all_checkpoints_of_a_sweep_are_trusted(
    tools: SimpleNamespace, models: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    config, checkpoint = models['classification']
    pairs = []
    for name in 'ab':
        old = tmp_path / f'{name}.pth'
        torch.save({**torch.load(checkpoint), 'extra': Code(tmp_path / f'{name}_ran')}, old)
        pairs += [config, str(old)]
    arguments = [*pairs, '--labels', 'a', 'b', '--sizes', '16', '--work-dir', str(tmp_path)]
    with isolated(), pytest.raises(SystemExit):
        tools.test_resolutions(arguments)
    assert not list(tmp_path.glob('*_ran'))
    with isolated():
        tools.test_resolutions([*arguments, '--trust-checkpoint'])
    assert list(results_in(tmp_path)) == [('a', '16'), ('b', '16')]


def test_a_metric_that_no_test_gives_is_found_at_the_first_result(
    tools: SimpleNamespace,
    models: dict[str, tuple[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tests: list[int] = []
    test = Runner.test
    monkeypatch.setattr(Runner, 'test', lambda self: tests.append(1) or test(self))
    work_dir = ['--work-dir', str(tmp_path)]
    for _ in range(2):  # the second call has the result that the first one kept
        with isolated(), pytest.raises(SystemExit):
            tools.test_resolutions([*models['segmentation'], '--sizes', '32', '48', '--metric', 'bogus', *work_dir])
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith('test_resolutions.py: error: --metric') and 'bogus' in last and 'mIoU' in last
        assert len(tests) == len(list((tmp_path / 'results').iterdir())) == 1
    pairs = [*models['segmentation'], *models['classification']]
    with isolated():  # the second model alone has it
        tools.test_resolutions([*pairs, '--sizes', '32', '--metric', 'top1', *work_dir])
    assert len(tests) == 2


def test_metrics_that_are_no_numbers_are_left_out_and_none_at_all_is_an_error(
    tools: SimpleNamespace,
    models: dict[str, tuple[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    test = Runner.test
    given = dict(of_each=[0.1, 0.2], whole=np.float32(0.5))
    monkeypatch.setattr(Runner, 'test', lambda self: (test(self), dict(given))[1])
    arguments = [*models['segmentation'], '--sizes', '32', '--work-dir']
    with isolated():
        tools.test_resolutions([*arguments, str(tmp_path / 'some')])
    (result,) = results_in(tmp_path / 'some').values()
    assert result['metrics'] == {'whole': 0.5}
    given.clear()
    with isolated(), pytest.raises(SystemExit):
        tools.test_resolutions([*arguments, str(tmp_path / 'none')])
    assert re.search('error: no test_evaluator .*format_only', capsys.readouterr().err)


def test_a_model_leaves_no_switch_of_attention_to_the_next(
    tools: SimpleNamespace, models: dict[str, tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def build(*args: Any, **kwargs: Any) -> None:
        found.append(torch.backends.cuda.cudnn_sdp_enabled())
        attend_without_plans()
        raise RuntimeError('built')

    monkeypatch.setattr('mmrope.commands.resolutions.build_runner', build)
    pairs = [*models['detection'], *models['segmentation']]
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        with isolated(), pytest.raises(SystemExit):
            tools.test_resolutions([*pairs, '--sizes', '64', '--work-dir', str(tmp_path)])
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
    assert found == [True, True]


@pytest.mark.slow
@pytest.mark.skipif(has_accelerator(), reason='one process would compute elsewhere than the two')
def test_two_processes_measure_what_one_does(
    tools: SimpleNamespace, models: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    """Two models, one after the other, in the same two processes."""
    arguments = [*models['segmentation'], *models['classification'], '--sizes', '32', '48', '--scale-windows']
    with isolated():
        tools.test_resolutions([*arguments, '--work-dir', str(tmp_path / 'one')])
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', '--standalone']
    command += [str(ROOT / 'tools/test_resolutions.py'), *arguments, '--launcher', 'pytorch']
    environment = os.environ | {'PYTHONPATH': python_path(), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    done = subprocess.run(
        [*command, '--work-dir', str(tmp_path / 'two')], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('resolutions.csv') == 1  # rank 0 alone speaks
    one, two = results_in(tmp_path / 'one'), results_in(tmp_path / 'two')
    assert one.keys() == two.keys() and len(one) == 4
    for name in one:
        assert two[name]['metrics'] == pytest.approx(one[name]['metrics'], abs=1e-6)


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['detection.py', '--sizes', '64'], r'CONFIG.*CHECKPOINT.*\b1\b.*\bdetection\.py'),
        (['a.py', 'b.pth', '--sizes', '64xx'], "--sizes.*HxW.*'64xx'"),
        (['a.py', 'b.pth'], 'the following arguments are required: --sizes'),
        (['a.py', 'b.pth', '--sizes', '64', '--labels', 'x', 'y'], r'--labels\b.*\b1\b'),
        (['detectoin.py', 'b.pth', '--sizes', '64'], r'config.* detectoin\.py.* detection\.py'),
        (['detection.py', 'none.pth', '--sizes', '64'], r'CHECKPOINT\b.*\bnone\.pth'),
        (['segmentation.py', 'empty.pth', '--sizes', '64'], 'Resize.*ResizeShortestEdge.*ResizeEdge'),
        (['detection.py', 'empty.pth', '--sizes', '64'], r'empty\.pth\b.* backbone\.'),
    ],
)
def test_a_mistake_ends_in_one_sentence(
    tools: SimpleNamespace,
    write_config: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in ('detection', 'segmentation'):
        write_config(tmp_path, kind)
    torch.save(dict(state_dict={}), 'empty.pth')
    with pytest.raises(SystemExit) as caught:
        tools.test_resolutions(arguments)
    assert caught.value.code != 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.match(f'test_resolutions.py: error: .*{words}', last)
