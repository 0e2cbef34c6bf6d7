"""What README.md and docs/ tell a user to type works, and trains what the configs say."""

import argparse
import re
import shlex
from pathlib import Path

import pytest
from mmengine.config import Config

from mmrope.commands.checks.batch_size import describe_mismatch
from mmrope.commands.checks.config import check_options
from mmrope.commands.cli import add_options
from mmrope.models import RoPESwin, RoPEViT

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
CONFIGS = sorted((ROOT / 'configs').glob('*.py'))
TRAINED = [path for path in CONFIGS if not path.name.startswith('imagenet')]
BLOCK = re.compile(r'^```(\w+)\n(.*?)^```', re.MULTILINE | re.DOTALL)
TRAIN = re.compile(r'^(?:tools/dist_train\.sh|tools/slurm_train\.sh|tools/train\.py)$')


def blocks(language: str) -> list[str]:
    return [text for page in PAGES for kind, text in BLOCK.findall(page.read_text()) if kind == language]


def commands() -> list[list[str]]:
    """Commands of the documents that name a config of this repository, as words."""
    lines = [line for block in blocks('shell') for line in block.replace('\\\n', ' ').splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [command for command in words if any((ROOT / word) in CONFIGS for word in command)]


def configured(command: list[str]) -> tuple[Config, Config]:
    """The config of a command as it is, and with the options of the command."""
    (name,) = [word for word in command if (ROOT / word) in CONFIGS]
    parser = argparse.ArgumentParser()
    add_options(parser)
    args, _ = parser.parse_known_args(command[command.index(name) + 1 :])
    cfg, changed = (Config.fromfile(ROOT / name) for _ in range(2))
    if args.cfg_options:
        check_options(changed, args.cfg_options)
        changed.merge_from_dict(args.cfg_options)
    return cfg, changed


def processes_of(command: list[str]) -> int:
    variables = dict(word.split('=', 1) for word in command if re.match(r'[A-Z_]+=', word))
    if 'tools/dist_train.sh' not in command:
        return int(variables.get('GPUS', 1))
    return int(variables.get('NNODES', 1)) * int(command[command.index('tools/dist_train.sh') + 2])


def described(command: list[str]) -> str:
    return ' '.join(command)


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 10 and len(blocks('python')) >= 8


@pytest.mark.parametrize('command', commands(), ids=described)
def test_options_of_a_command_fit_its_config(command: list[str]) -> None:
    configured(command)


TRAININGS = [command for command in commands() if any(map(TRAIN.match, command))]


@pytest.mark.parametrize('command', TRAININGS, ids=described)
def test_a_training_sees_the_epochs_of_its_config_at_the_batch_of_its_rate(command: list[str]) -> None:
    before, after = configured(command)
    counts = after.optim_wrapper.get('accumulative_counts', 1)
    batch_size, base = after.train_dataloader.batch_size, after.auto_scale_lr.base_batch_size
    assert describe_mismatch(base, processes_of(command), batch_size, counts) is None
    stretched = counts / before.optim_wrapper.get('accumulative_counts', 1)
    assert after.train_cfg.get('max_iters', 0) == stretched * before.train_cfg.get('max_iters', 0)
    for old, new in zip(before.param_scheduler, after.param_scheduler, strict=True):
        assert new.end == (old.end if old.by_epoch else stretched * old.end)


def test_the_first_training_on_several_gpus_is_the_hundred_epochs_of_vitdet() -> None:
    first = next(command for command in TRAININGS if 'tools/dist_train.sh' in command)
    _, cfg = configured(first)
    images = cfg.train_cfg.max_iters * processes_of(first) * cfg.train_dataloader.batch_size
    assert images / 118_000 == pytest.approx(100)


INHERITING = [text for text in blocks('python') if '_base_.' in text and '_base_ =' not in text]


@pytest.mark.parametrize('path', TRAINED, ids=lambda path: path.stem)
def test_snippets_that_inherit_work_on_every_config(path: Path, tmp_path: Path) -> None:
    assert len(INHERITING) == 2
    for text in INHERITING:
        (tmp_path / 'child.py').write_text(f'_base_ = {str(path)!r}\n{text}')
        cfg = Config.fromfile(tmp_path / 'child.py')
        *before, added = [hook.type for hook in cfg.custom_hooks]
        assert before == ['mmrope.FiniteLossHook', 'mmrope.LogFreqsHook'] and f"'{added}'" in text


@pytest.mark.parametrize('text', [text for text in blocks('python') if 'config_path(' in text])
def test_snippets_that_inherit_by_path_are_configs_of_a_backbone(text: str, tmp_path: Path) -> None:
    (tmp_path / 'child.py').write_text(text)
    model = Config.fromfile(tmp_path / 'child.py').model
    assert model.backbone.type.startswith('mmrope.') and model.type in ('EncoderDecoder', 'FasterRCNN')


STANDALONE = [text for text in blocks('python') if re.match(r'(model|init_cfg|optim_wrapper|custom_hooks) = ', text)]


@pytest.mark.parametrize('text', [text for text in STANDALONE if text not in INHERITING])
def test_other_snippets_are_configs_and_their_backbones_build(text: str, tmp_path: Path) -> None:
    (tmp_path / 'part.py').write_text(text)
    backbone = Config.fromfile(tmp_path / 'part.py').get('model', {}).get('backbone')
    if backbone:
        kinds = {'mmrope.RoPEViT': RoPEViT, 'mmrope.RoPESwin': RoPESwin}
        kinds[backbone.pop('type')](**backbone)
