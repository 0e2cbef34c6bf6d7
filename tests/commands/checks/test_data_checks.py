"""What the files of a data set hold is checked by the rules of its class."""

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmrope.commands.checks.config import CommandError, check_data
from mmrope.commands.checks.data import ignored_by, steps_of


def config(root: Path, lines: str, **dataset: Any) -> Config:
    """A classification set with a list of images and labels."""
    (root / 'train').mkdir(exist_ok=True)
    for name in ('a.png', 'b.png'):
        (root / 'train' / name).write_bytes(b'x')
    (root / 'list.txt').write_text(lines)
    dataset = dict(type='CustomDataset', data_root=str(root), ann_file='list.txt', data_prefix='train') | dataset
    cfg = dict(default_scope='mmpretrain', train_dataloader=dict(dataset=dataset), train_cfg=dict())
    return Config(cfg | dict(model=dict(head=dict(type='LinearClsHead', num_classes=2))))


def test_a_list_of_labels_passes(tmp_path: Path) -> None:
    check_data(config(tmp_path, 'a.png 0\nb.png 1\n'), ('train',))
    check_data(config(tmp_path, 'a.png\nb.png\n', with_label=False), ('train',))


@pytest.mark.parametrize(
    'lines, words',
    [
        ('a.png 0\n\n', 'has blank lines, .*: line 2;'),
        ('a.png 0\nc.png 1\n', r'lists images that do not exist: .*train/c\.png'),
        ('a.png 0\nb.png 2\n', 'has labels of no class: 2; classes are 0 to 1'),
        ('a.png 0\nb.png one\n', "CustomDataset cannot read: ValueError: .*'one'"),
    ],
)
def test_a_fault_in_a_list_of_labels_is_named(tmp_path: Path, lines: str, words: str) -> None:
    with pytest.raises(CommandError, match=rf'train_dataloader reads .*list\.txt, which {words}'):
        check_data(config(tmp_path, lines), ('train',))


def test_steps_are_found_in_steps_of_steps() -> None:
    load, flip = dict(type='LoadAnnotations'), dict(type='RandomFlip')
    augmented = dict(type='TestTimeAug', transforms=[[flip], [load]])
    assert list(steps_of([augmented, flip])) == [augmented, flip, load, flip]


def test_only_values_that_all_heads_ignore_are_ignored() -> None:
    assert ignored_by([]) == ignored_by([dict(), dict(ignore_index=255)]) == {255}
    assert ignored_by([dict(ignore_index=11), dict()]) == ignored_by([dict(ignore_index=None)]) == set()
