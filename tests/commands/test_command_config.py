"""Configs of a command line: by path or by name, read without changing the process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmrope import config_path
from mmrope.commands.config import find_config, load_config
from mmrope.commands.errors import CommandError
from tests.helpers.tiny import ROOT, python_path

NAME = 'mask_rcnn_rope_mixed_vit_b_coco'


@pytest.mark.parametrize('name', [NAME, f'{NAME}.py'])
def test_a_config_of_ours_is_found_by_its_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == config_path(f'{NAME}.py')
    (tmp_path / name).touch()
    assert find_config(name) == name  # a file comes first


@pytest.mark.parametrize('name', ['mask_rcnn_rope_mixed_vit_b_cocoo', f'elsewhere/{NAME}.py'])
def test_a_config_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(CommandError, match=f'no config.* {name}'):
        find_config(name)


CODE = """
import os, sys
import torch
from mmengine.runner import CheckpointLoader
from mmrope.commands.config import load_config
before = dict(os.environ), torch.load, dict(CheckpointLoader._schemes)
cfg = load_config(sys.argv[1], {'train_dataloader.batch_size': 3})
assert cfg.train_dataloader.batch_size == 3
assert (dict(os.environ), torch.load, dict(CheckpointLoader._schemes)) == before
print(*sorted({'mmdet', 'mmseg', 'mmpretrain'} & set(sys.modules)))
"""


def test_loading_a_config_changes_nothing_of_the_process() -> None:
    environment = {**os.environ, 'PYTHONPATH': python_path()}
    command = [sys.executable, '-c', CODE, NAME]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []  # no host either
    assert load_config(str(ROOT / 'configs' / f'{NAME}.py')).model.type == 'MaskRCNN'


@pytest.mark.parametrize('imports, scope', [('mmdet.models import FasterRCNN', 'mmdet'), ('torch import nn', None)])
def test_a_config_of_classes_gets_the_scope_of_its_model(imports: str, scope: str | None, tmp_path: Path) -> None:
    """Data sets, metrics and steps that a command adds are named in text."""
    name = imports.rpartition(' ')[2]
    path = tmp_path / 'pure.py'
    path.write_text(f'from {imports}\n\ndefault_scope = None\nmodel = dict(type={name})\n')
    assert load_config(str(path)).default_scope == scope
