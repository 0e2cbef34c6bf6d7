"""The experiment with image sizes: what it runs, that it goes on where it was, and what it writes."""

import json
import subprocess
from pathlib import Path
from statistics import mean, stdev
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from experiments.resolution import run as experiment
from experiments.resolution.run import CONFIGS, METRIC, ROOT, SIZES, VARIANTS, Run, all_runs, carry_out, report


def finish(run: Run, accuracy: float) -> None:
    """Write what the tests of a run leave."""
    run.tested.parent.mkdir(parents=True)
    results = [{'size': str(size), 'images': 7, 'metrics': {METRIC: accuracy + size}} for size in SIZES]
    run.tested.write_text(json.dumps(results))


def test_every_variant_with_every_seed_in_a_folder_of_its_own(tmp_path: Path) -> None:
    runs = all_runs(tmp_path)
    assert len(runs) == len({run.folder for run in runs}) == 7 * 3
    assert [run.seed for run in runs] == [0] * 7 + [1] * 7 + [2] * 7
    assert min(SIZES) == 0.75 * experiment.TRAINED_AT and max(SIZES) == 3 * experiment.TRAINED_AT


@pytest.mark.parametrize('model', VARIANTS)
def test_variants_differ_in_the_position_embedding_alone(model: str, tmp_path: Path) -> None:
    cfg = Config.fromfile(ROOT / 'configs' / f'{CONFIGS[model]}.py')
    assert cfg.model.backbone.rope == 'mixed'
    crop, resize = cfg.train_dataloader.dataset.pipeline[1], cfg.test_dataloader.dataset.pipeline[1]
    side = experiment.TRAINED_AT
    assert crop.type == 'RandomResizedCrop' and crop.scale == side and resize.scale == (side, side)
    for variant, options in VARIANTS[model].items():
        assert set(options) <= {'rope', 'ape', 'rpb'}
        named = {'rope': 'RoPE' in variant, 'ape': 'APE' in variant, 'rpb': 'RPB' in variant}
        assert {key: bool(options.get(key)) for key in named} == named
        assert not named['rope'] or options['rope'] == ('axial' if 'Axial' in variant else 'mixed')
        command = next(Run(model, variant, 5, tmp_path).commands())
        assert 'randomness.seed=5' in command and f'model.backbone.rope={options["rope"]}' in command


def test_commands_go_on_where_a_run_was(tmp_path: Path) -> None:
    run = Run('Swin', 'RPB', 1, tmp_path)
    steps = run.commands()
    assert next(steps)[0].endswith('train.py') and not run.trained.exists()  # killed here
    run.folder.mkdir(parents=True)
    (run.folder / 'last_checkpoint').write_text('/moved/since/iter_8.pth')
    steps = run.commands()
    assert '--resume' in next(steps)
    test = next(steps)
    assert run.trained.exists()
    assert test[0].endswith('test_resolutions.py') and str(run.folder / 'iter_8.pth') in test
    assert next(run.commands()) == test  # killed here: the training is not repeated
    finish(run, 1)
    assert list(run.commands()) == []


def test_runs_are_carried_out_once_and_a_failure_names_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = all_runs(tmp_path, seeds=[0])
    called: list[list[str]] = []

    def start(command: list[str], **kwargs: object) -> SimpleNamespace:
        called.append(command)
        folder = Path(command[command.index('--work-dir') + 1])
        (run,) = [run for run in runs if folder in (run.folder, run.tested.parent)]
        failed = run.model == 'Swin' and not fixed
        if not failed and command[1].endswith('train.py'):
            (run.folder / 'last_checkpoint').write_text('iter_1.pth')
        elif not failed:
            finish(run, 50)
        return SimpleNamespace(wait=lambda: int(failed), poll=lambda: 0, terminate=lambda: None)

    monkeypatch.setattr(subprocess, 'Popen', start)
    fixed = False
    with pytest.raises(RuntimeError, match=r'train\.py.*/swin_\w+/seed_0/train\.log'):
        carry_out(runs, jobs=1)
    done = [run for run in runs if run.tested.exists()]
    assert [run.model for run in done] == ['ViT'] * 4
    fixed, called[:] = True, []
    for _ in range(2):
        carry_out(runs, jobs=2)
        assert len(called) == 3 * 2  # a training and a test of each Swin, once
    assert 'Swin, RPB, seed 0: 86.0 % at 36, 98.0 % at 48' in ' '.join(capsys.readouterr().out.split())


def test_the_tables_have_mean_spread_and_every_seed(tmp_path: Path) -> None:
    runs = all_runs(tmp_path)
    for accuracy, run in zip((10, 20.5, 12), [run for run in runs if run.variant == 'APE'], strict=True):
        finish(run, accuracy)
    finish(runs[1], 5)
    text = report(runs)
    assert text.startswith('4 of 21 runs; top-1 accuracy in percent on 7 images.')
    values = [accuracy + 36 for accuracy in (10, 20.5, 12)]
    assert f'| ViT, APE | {mean(values):.1f} ± {stdev(values):.1f} |' in text
    shares = [100 * value / (value + 12) for value in values]
    assert f'| ViT, APE | {mean(shares):.1f} ± {stdev(shares):.1f} | 100.0 ± 0.0 |' in text
    assert '| ViT, RoPE-Axial | 41.0 |' in text  # one seed has no spread
    for seed, value in enumerate(values):
        assert f'| ViT, APE, seed {seed} | {value:.1f} |' in text
    assert '36 (0.75 x) | 48 (1 x)' in text and '144 (3 x)' in text
    page = tmp_path / 'page.md'
    page.write_text('above <!-- measured: begin --> old <!-- measured: end --> below')
    experiment.write_measured(page, text)
    assert page.read_text() == f'above <!-- measured: begin -->\n\n{text}\n\n<!-- measured: end --> below'
    experiment.draw(runs, tmp_path / 'plot.png')
    assert (tmp_path / 'plot.png').read_bytes()[:4] == b'\x89PNG'


def test_the_page_has_a_place_for_the_tables() -> None:
    page = (ROOT / 'docs/resolution.md').read_text()
    assert page.index(experiment.BEGIN) < page.index(experiment.END)
