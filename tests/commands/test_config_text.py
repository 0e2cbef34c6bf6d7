"""The text of a config tells what has changed in it, and is never run."""

from pathlib import Path

from mmengine.config import Config

from mmrope.commands.config_text import MISSING, describe, differences, read_config


def test_a_config_is_read_from_its_text() -> None:
    cfg = dict(
        optim=dict(lr=1e-4, betas=(0.9, 0.999), clip=None, **{'not-a-name': True}),
        steps=[dict(end=-3, by_epoch=False), dict(end=float('inf'))],
        name='a "quoted" name',
    )
    text = Config(cfg).pretty_text + "kind='pathlib.Path'\n"  # as a class is written, which MMEngine 0.10.7 cannot
    assert read_config(text) == dict(
        optim={'lr': 1e-4, 'betas': [0.9, 0.999], 'clip': None, 'not-a-name': True},
        steps=[dict(end=-3, by_epoch=False), dict(end='inf')],
        name='a "quoted" name',
        kind='pathlib.Path',
    )


def test_nothing_in_a_text_is_run(tmp_path: Path) -> None:
    text = f'a = open({str(tmp_path / "made")!r}, "w")\nimport os\nos.mkdir({str(tmp_path / "made")!r})\nb = 1'
    assert read_config(text)['b'] == 1
    assert list(tmp_path.iterdir()) == []
    assert read_config('no python') == {}


def test_differences_are_named_by_their_paths() -> None:
    old = dict(lr=1, same=2, steps=[dict(end=3), dict(end=4)], sizes=[1, 2], workers=1, gone=0)
    new = dict(lr=2, same=2, steps=[dict(end=5)], sizes=[1, 3], workers=2, new='x' * 100)
    found = sorted(differences(old, new, ignored=('workers',)), key=lambda change: change[0])
    assert found == [
        ('gone', 0, MISSING),
        ('lr', 1, 2),
        ('new', MISSING, 'x' * 100),
        ('sizes', [1, 2], [1, 3]),
        ('steps.0.end', 3, 5),
        ('steps.1', dict(end=4), MISSING),
    ]
    assert describe(found[1]) == 'lr 1 -> 2'
    assert describe(found[2]) == f'new not set -> {"x" * 60} ...'
