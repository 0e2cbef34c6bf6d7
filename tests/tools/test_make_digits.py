"""``mmrope digits``, also as tools/make_digits.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from mmrope.commands.main import main

pytest.importorskip('sklearn')
pytest.importorskip('pycocotools')

TOOL = Path(__file__).parents[2] / 'tools' / 'make_digits.py'


@pytest.fixture
def make_digits(monkeypatch, capsys, tmp_path):
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


def test_the_tool_runs_from_any_folder_and_says_what_it_made(tmp_path):
    command = [sys.executable, str(TOOL), '--images', '2', '--val-images', '1', '--size', '32x64']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.endswith('wrote data/digits\n')
    assert (tmp_path / 'data' / 'digits' / 'images' / 'training' / '000001.png').is_file()


def test_second_run_finds_it_complete(make_digits):
    options = ('--out', 'here', '--images', '1', '--val-images', '1', '--size', '32')
    assert make_digits(*options) == (0, 'wrote here', '')
    assert make_digits(*options) == (0, 'here is complete', '')


def test_single_digits(make_digits, tmp_path):
    options = ('--single', '--images', '1', '--val-images', '1', '--size', '32')
    assert make_digits(*options) == (0, 'wrote data/single_digits', '')
    assert len(list((tmp_path / 'data' / 'single_digits').rglob('*.png'))) == 2
    assert 'size' in make_digits('--single', '--size', '32x64')[2]


def test_other_arguments_are_refused(make_digits):
    options = ('--images', '1', '--val-images', '1', '--size', '32')
    make_digits(*options)
    code, _, error = make_digits(*options, '--seed', '7')
    assert code == 1 and error.startswith('mmrope digits: error: data/digits ') and 'seed=0, not 7' in error


def test_one_number_is_a_square_and_two_are_height_and_width(make_digits):
    options = ('--images', '1', '--val-images', '1')
    make_digits(*options, '--size', '48')
    assert make_digits(*options, '--size', '48x48')[1] == 'data/digits is complete'
    assert 'size=[48, 48], not [48, 64]' in make_digits(*options, '--size', '48x64')[2]


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
def test_bad_value_stops_it_with_one_sentence(make_digits, tmp_path, option, value, code):
    assert (done := make_digits(f'{option}={value}'))[0] == code
    last = done[2].splitlines()[-1]
    named = '/dev/null' if option == '--out' else option if code == 2 else option.strip('-').replace('-', '_')
    assert last.startswith('mmrope digits: error: ') and named in last
    assert list(tmp_path.iterdir()) == []
