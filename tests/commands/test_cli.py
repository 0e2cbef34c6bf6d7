"""Arguments, sizes and tables that the command lines have in common."""

import argparse
from pathlib import Path

import pytest

from mmrope.commands.cli import (
    check_output,
    labels_of,
    name_of,
    pairs_of,
    parse_pixels,
    parse_size,
    part,
    positive,
    share,
)
from mmrope.commands.errors import CommandError
from mmrope.commands.main import COMMANDS, main


@pytest.mark.parametrize(
    'text, kind, sides', [('128', 'scaled', (128, 128)), ('96x160', 'exact', (96, 160)), ('short:9', 'short', (9, 9))]
)
def test_a_size_is_a_number_two_or_a_shorter_side(text: str, kind: str, sides: tuple[int, int]) -> None:
    size = parse_size(text)
    assert (size.text, size.kind, tuple(size)) == (text, kind, sides)


@pytest.mark.parametrize(
    'text', ['', '0', '96x0', 'x96', '96X96', '-1', 'short:', 'short:9x9', '9x9x9', '1.5', '\u0663']
)
def test_other_sizes_are_refused(text: str) -> None:
    for parse in (parse_size, parse_pixels):
        with pytest.raises(argparse.ArgumentTypeError, match=f'N.*HxW.*{text!r}'):
            parse(text)


def test_one_image_has_no_shorter_side_alone() -> None:
    assert tuple(parse_pixels('96x160')) == (96, 160)
    with pytest.raises(argparse.ArgumentTypeError, match='short:9'):
        parse_pixels('short:9')


@pytest.mark.parametrize(
    'parse, text', [(positive, '0'), (positive, '1.0'), (share, '1.1'), (share, 'nan'), (part, '0'), (part, '1')]
)
def test_other_numbers_are_refused(parse: object, text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=repr(text)):
        parse(text)


def test_an_output_is_a_new_file_unless_it_may_be_replaced(tmp_path: Path) -> None:
    file = tmp_path / 'file'
    check_output(tmp_path / 'new' / 'file', overwrite=False)
    file.touch()
    check_output(file, overwrite=True)
    for path, words in (
        (file, f'{file} .*--overwrite'),
        (tmp_path, f'{tmp_path} .*folder'),
        (file / 'below', f'{file}/below.*{file} .*folder'),
    ):
        with pytest.raises(CommandError, match=words):
            check_output(path, overwrite=False)


def test_an_output_where_nobody_may_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mmrope.commands.cli.os.access', lambda *_: False)  # root may write anywhere
    with pytest.raises(CommandError, match='new/file cannot be written: permission denied'):
        check_output(tmp_path / 'new/file', overwrite=True)


def test_models_are_named_by_their_configs_unless_two_would_be_the_same() -> None:
    assert [name_of(path) for path in ('configs/a.py', 'b', 'work_dirs/fruit/config.py')] == ['a', 'b', 'fruit']
    pairs = pairs_of(['x/a.py', '1.pth', 'y/config.py', '2.pth'])
    assert labels_of(pairs, None) == ['a', 'y'] and labels_of(pairs, ['p', 'q']) == ['p', 'q']
    assert labels_of([('a.py', '1.pth'), ('x/a.py', '2.pth')], None) == ['a 1.pth', 'a 2.pth']
    for labels in (['p'], ['p', 'p'], ['p', 'q', 'p']):
        with pytest.raises(CommandError, match=f'--labels must be 2 .*got {" ".join(labels)}$'):
            labels_of(pairs, labels)
    with pytest.raises(CommandError, match='CONFIG CHECKPOINT must come in pairs, got 1: a.py'):
        pairs_of(['a.py'])


def test_the_command_lists_its_programs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(['--help'])
    assert stop.value.code == 0
    words = capsys.readouterr().out.split()
    assert set(COMMANDS) <= set(words)
    with pytest.raises(SystemExit) as stop:
        main(['trian'])
    assert stop.value.code == 2 and 'trian' in capsys.readouterr().err
