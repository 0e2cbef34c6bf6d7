"""Errors of a command: one sentence, and an interruption with what becomes of the training."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmrope.checkpoints.loading import UnsafeCheckpointError
from mmrope.commands.errors import CommandError, Run, errors_in_one_sentence, errors_of, sentence
from mmrope.commands.runner import RunStarted


@pytest.mark.parametrize(
    ('error', 'text'),
    [
        (CommandError('do this'), 'do this$'),
        (UnsafeCheckpointError('not loaded'), 'not loaded$'),
        (TypeError('two\n  lines'), r'TypeError: two lines\W.*--traceback'),
        (KeyError("no 'x' here"), r"KeyError: no 'x' here\W.*--traceback"),
        (
            KeyError('X is not in the mmdet::model registry. Please check whether the value of `X` is correct'),
            r'KeyError: X is not in the mmdet::model registry(?!.*Please)\W.*--traceback',
        ),
        (
            KeyError('mmrope.RoPEVit is not in the mmengine::model registry. Please check whether the value of ...'),
            r'KeyError: mmrope\.RoPEVit is not in the mmengine::model registry(?!.*Please).* mmrope\.RoPEViT\W.*--',
        ),
        (
            KeyError('RoPEViT is not in the model registry. Please check whether the value of ...'),
            r'KeyError: RoPEViT is not in the model registry(?!.*Please).* mmrope\.RoPEViT\W.*--',
        ),
        (ValueError('x' * 5000), r'ValueError: x{600} .*--traceback'),
    ],
)
def test_an_error_in_one_line(error: Exception, text: str) -> None:
    line = sentence(error)
    assert re.match(text, line) and '\n' not in line


def test_an_error_is_one_line_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, errors_in_one_sentence('tool.py'):
        raise CommandError('do this')
    assert caught.value.code == 1
    assert capsys.readouterr().err == 'tool.py: error: do this\n'


def test_an_error_passes_through_on_demand() -> None:
    with pytest.raises(CommandError), errors_in_one_sentence('tool.py', traceback=True):
        raise CommandError('do this')


def test_an_error_about_a_value_begins_with_its_flag() -> None:
    with pytest.raises(CommandError, match='^--size: size must be positive$'), errors_of('--size'):
        raise ValueError('size must be positive')
    with pytest.raises(TypeError), errors_of('--size'):
        raise TypeError('no mistake of the command line')


def runner_at(work_dir: Path, iteration: int = 0) -> SimpleNamespace:
    """Return a runner with the parts that know where a training is."""
    return SimpleNamespace(work_dir=str(work_dir), iter=iteration)


@pytest.mark.parametrize('stage', ['before_train', 'before_test'])
def test_an_error_passes_through_once_the_run_has_started(tmp_path: Path, stage: str) -> None:
    run = Run()
    with pytest.raises(CommandError), errors_in_one_sentence('tool.py', run):
        getattr(RunStarted(run), stage)(runner_at(tmp_path))
        raise CommandError('later')


@pytest.mark.parametrize('workers_end_too', [False, True])
def test_ctrl_c_is_an_interruption_even_if_other_errors_follow(
    workers_end_too: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(resumable=True)
    with pytest.raises(SystemExit) as caught, errors_in_one_sentence('tool.py', run):
        RunStarted(run).before_train(runner_at(tmp_path))
        (tmp_path / 'last_checkpoint').touch()
        try:
            raise KeyboardInterrupt
        finally:
            if workers_end_too:
                raise RuntimeError('DataLoader worker exited unexpectedly')
    assert caught.value.code == 130
    assert re.match(r'tool\.py: interrupted\b.*--resume', capsys.readouterr().err)


def interrupted(work_dir: Path, capsys: pytest.CaptureFixture[str], iteration: int | None) -> str:
    """Return the message when Ctrl-C ends a training that began at an iteration, or was still building."""
    run = Run(resumable=True)
    with pytest.raises(SystemExit), errors_in_one_sentence('tool.py', run):
        if iteration is not None:
            RunStarted(run).before_train(runner_at(work_dir, iteration))
        raise KeyboardInterrupt
    return capsys.readouterr().err


def test_ctrl_c_before_the_first_checkpoint_promises_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = [interrupted(tmp_path, capsys, iteration) for iteration in (0, 5)]
    none = said[0]
    assert said == [none] * 2 and re.match(r'tool\.py: interrupted\b.*no checkpoint', none) and '--resume' not in none
    (tmp_path / 'last_checkpoint').touch()  # of an earlier training, unless this one has resumed from it
    assert interrupted(tmp_path, capsys, 0) == none
    unbegun = interrupted(tmp_path, capsys, None)
    assert unbegun.startswith('tool.py: interrupted before') and '--resume' not in unbegun
    assert '--resume' in interrupted(tmp_path, capsys, 5)
