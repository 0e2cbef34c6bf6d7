"""``mmrope digits``, also as tools/make_digits.py."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmrope.commands.main import main

pytest.importorskip('sklearn')
pytest.importorskip('pycocotools')

TOOL = Path(__file__).parents[2] / 'tools' / 'make_digits.py'


@pytest.fixture
def make_digits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """``make_digits(*options)``: run the command in an empty folder; its exit code, last line of output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*options: str) -> tuple[int, str, str]:
        code = 0
        try:
            main(['digits', *options])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out.strip().split('\n')[-1], err

    return run


def test_the_tool_runs_from_any_folder_and_names_its_output(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOL), '--images', '2', '--val-images', '1', '--size', '32x64']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.endswith('wrote data/digits\n')
    assert (tmp_path / 'data' / 'digits' / 'images' / 'training' / '000001.png').is_file()


def test_second_run_finds_it_complete(make_digits: Callable[..., tuple[int, str, str]]) -> None:
    options = ('--out', 'here', '--images', '1', '--val-images', '1', '--size', '32')
    assert make_digits(*options) == (0, 'wrote here', '')
    assert make_digits(*options) == (0, 'here is complete', '')


def test_single_digits(make_digits: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    options = ('--single', '--images', '1', '--val-images', '1', '--size', '32')
    assert make_digits(*options) == (0, 'wrote data/single_digits', '')
    assert len(list((tmp_path / 'data' / 'single_digits').rglob('*.png'))) == 2
    assert 'size' in make_digits('--single', '--size', '32x64')[2]


def test_other_arguments_are_refused(make_digits: Callable[..., tuple[int, str, str]]) -> None:
    options = ('--images', '1', '--val-images', '1', '--size', '32')
    make_digits(*options)
    code, _, error = make_digits(*options, '--seed', '7')
    assert code == 1 and re.match(r'mmrope digits: error: .*data/digits\b.*\bseed=0\b.*\b7\b', error)


def test_one_number_is_a_square_and_two_are_height_and_width(make_digits: Callable[..., tuple[int, str, str]]) -> None:
    options = ('--images', '1', '--val-images', '1')
    make_digits(*options, '--size', '48')
    assert make_digits(*options, '--size', '48x48')[1] == 'data/digits is complete'
    assert re.search(r'\bsize=\[48, 48\].*\[48, 64\]', make_digits(*options, '--size', '48x64')[2])


@pytest.mark.parametrize(
    ('option', 'value', 'code'),
    [
        ('--size', '96X160', 2),
        ('--size', 'short:96', 2),
        ('--size', '', 2),
        ('--size', '31', 1),
        ('--size', '64x16', 1),
        ('--images', '0', 2),
        ('--images', '1000001', 1),
        ('--val-images', '-5', 2),
        ('--seed', '-1', 1),
        ('--seed', 'one', 2),
        ('--out', '/dev/null', 1),
        ('--out', '/dev/null/digits', 1),
    ],
)
def test_bad_value_stops_it_with_one_sentence(
    make_digits: Callable[..., tuple[int, str, str]], tmp_path: Path, option: str, value: str, code: int
) -> None:
    assert (done := make_digits(f'{option}={value}'))[0] == code
    last = done[2].splitlines()[-1]
    named = '/dev/null' if option == '--out' else option if code == 2 else option.strip('-').replace('-', '_')
    assert last.startswith('mmrope digits: error: ') and named in last
    assert list(tmp_path.iterdir()) == []
