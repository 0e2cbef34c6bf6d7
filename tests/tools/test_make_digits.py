"""The tool that makes the embedded data set."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('sklearn')
pytest.importorskip('pycocotools')

TOOL = Path(__file__).parents[2] / 'tools' / 'make_digits.py'


@pytest.fixture
def make_digits(monkeypatch, capsys, tmp_path):
    """``make_digits(*options)``: run the tool in an empty folder; its exit code, last line of output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*options: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *options])
        code = 0
        try:
            runpy.run_path(str(TOOL), run_name='__main__')
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        # Python prints a code that is a text as one line, and exits with 1
        return (1, '', code) if isinstance(code, str) else (code, out.strip().split('\n')[-1], err)

    return run


def test_it_runs_from_any_folder_and_says_what_it_made(tmp_path):
    command = [sys.executable, str(TOOL), '--images', '2', '--val-images', '1', '--size', '32x64']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.endswith('data/digits is made: 2 + 1 images\n')
    assert (tmp_path / 'data' / 'digits' / 'images' / 'training' / '000001.png').is_file()


def test_errors_are_one_sentence_and_exit_with_1(tmp_path):
    (tmp_path / 'thesis.txt').touch()
    command = [sys.executable, str(TOOL), '--out', str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith('make_digits: ') and done.stderr.count('\n') == 1


def test_second_run_finds_it_complete(make_digits):
    options = ('--out', 'here', '--images', '1', '--val-images', '1', '--size', '32')
    assert make_digits(*options) == (0, 'here is made: 1 + 1 images', '')
    assert make_digits(*options) == (0, 'here is complete: 1 + 1 images', '')


def test_other_arguments_are_refused_until_overwrite(make_digits):
    options = ('--images', '1', '--val-images', '1', '--size', '32')
    make_digits(*options)
    code, _, error = make_digits(*options, '--seed', '7')
    assert code == 1 and 'seed=0, not 7' in error and '--overwrite' in error
    assert make_digits(*options, '--seed', '7', '--overwrite') == (0, 'data/digits is made: 1 + 1 images', '')


def test_one_number_is_a_square_and_two_are_height_and_width(make_digits):
    options = ('--images', '1', '--val-images', '1')
    make_digits(*options, '--size', '48')
    assert make_digits(*options, '--size', '48x48')[1] == 'data/digits is complete: 1 + 1 images'
    assert 'size=[48, 48], not [48, 64]' in make_digits(*options, '--size', '48x64')[2]


@pytest.mark.parametrize(
    ('option', 'value', 'said'),
    [
        ('--size', '96X160', '--size must be N or HEIGHTxWIDTH'),
        ('--size', '96x160x3', '--size must be'),
        ('--size', 'x96', '--size must be'),
        ('--size', '-128', '--size must be'),
        ('--size', '', '--size must be'),
        ('--size', '31', 'size must be an integer from 32'),
        ('--size', '64x16', 'size must be an integer from 32'),
        ('--images', '0', 'images must be an integer from 1'),
        ('--val-images', '-5', 'val_images must be an integer from 1'),
        ('--seed', '-1', 'seed must be an integer from 0'),
        ('--out', '/dev/null', '/dev/null is no digits data set'),
        ('--out', '/dev/null/digits', '/dev/null'),
    ],
)
def test_bad_value_stops_it_with_one_sentence(make_digits, tmp_path, option, value, said):
    code, _, error = make_digits(f'{option}={value}')
    assert code == 1 and said in error and '\n' not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('options', [('--images', 'many'), ('--no-such-option',), ('data/digits',)])
def test_what_argparse_refuses_exits_with_2(make_digits, options):
    assert make_digits(*options)[0] == 2
