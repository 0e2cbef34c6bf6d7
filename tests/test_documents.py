"""What README.md and docs/ tell a user to type works, and trains what the configs say."""

import argparse
import doctest
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

import mmrope
from mmrope.commands import train
from mmrope.commands.checks.batch_size import describe_mismatch
from mmrope.commands.checks.config import check_options
from mmrope.commands.cli import add_options
from mmrope.commands.main import COMMANDS, main
from mmrope.models import swin, vit
from mmrope.models.families import Family
from tests.helpers import own_data, published
from tests.helpers.hub import Hub
from tests.helpers.isolation import isolated
from tests.helpers.recipes import configs

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
CONFIGS = sorted((ROOT / 'configs').glob('*.py'))
BLOCK = re.compile(r'^```(\w+)[^\n]*\n(.*?)^```', re.MULTILINE | re.DOTALL)
TRAIN = re.compile(r'^(?:tools/dist_train\.sh|tools/slurm_train\.sh|tools/train\.py)$')


def blocks(language: str, *pages: Path) -> list[str]:
    return [text for page in pages or PAGES for kind, text in BLOCK.findall(page.read_text()) if kind == language]


def lines(*pages: Path) -> list[list[str]]:
    """Command lines of the documents, as words."""
    text = [line for block in blocks('shell', *pages) for line in block.replace('\\\n', ' ').splitlines()]
    return [words for line in text if (words := shlex.split(line, comments=True))]


def commands() -> list[list[str]]:
    """Command lines that name a config of this repository by its path."""
    return [words for words in lines() if any((ROOT / word) in CONFIGS for word in words)]


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
    assert len(commands()) >= 10 and len(lines()) >= 70 and len(blocks('python')) >= 11


SCRIPTS = {
    path.name: re.search(r"tool\('(\w+)'", path.read_text())[1]
    for path in (ROOT / 'tools').glob('*.py')
}  # fmt: skip
# Programs of others, and scripts with a test of their own.
OTHERS = {'git', 'source', 'pip', 'cd', 'cp', 'export', 'pytest', 'pre-commit'}
TESTED = {'docs/export/run_onnx.py', 'docs/make_model_zoo.py', 'docs/make_figure.py', 'benchmarks/operators.py',
          'benchmarks/gpu_count.py', 'benchmarks/gpu.py', 'benchmarks/rates.py', 'benchmarks/segmenters.py',
          'experiments/resolution/run.py'}  # fmt: skip


def arguments_of(words: list[str]) -> tuple[str, list[str]] | None:
    """The command of mmrope that a command line runs, with its arguments."""
    for i, word in enumerate(words):
        if word == 'mmrope' and i + 1 < len(words) and words[i + 1] in COMMANDS:
            return words[i + 1], words[i + 2 :]
        if word.startswith('tools/') and word.endswith('.py'):
            return SCRIPTS[word.removeprefix('tools/')], words[i + 1 :]
    return None


@pytest.mark.parametrize('words', lines(), ids=described)
def test_a_command_line_is_one_that_its_program_takes(words: list[str]) -> None:
    words = [word for word in words if not re.match(r'[A-Z_]+=', word)] or ['export']
    if (command := arguments_of(words)) is not None:
        parser = argparse.ArgumentParser(exit_on_error=False)
        import_module(f'mmrope.commands.{command[0]}').add_arguments(parser)
        parser.parse_args(['--help' if word == 'help' else word for word in command[1]])
    elif words[0] == 'make':
        variables = dict(word.split('=', 1) for word in words[1:] if '=' in word)
        targets = [word for word in words[1:] if '=' not in word]
        assert variables.keys() <= {'STACK', 'OPS', 'PYTHON'}
        subprocess.run(['make', '-n', *words[1:]], cwd=ROOT, check=True, capture_output=True)
        assert targets
    elif words[0].endswith('.sh') or words[0] == 'bash':
        assert (ROOT / words[words[0] == 'bash']).exists()
    elif words[0] == 'python':
        script = words[1]
        assert script in TESTED and (ROOT / script).exists() or script.startswith(('-', '$('))
    else:
        assert words[0] in OTHERS or words == ['mmrope', '--help']


@pytest.fixture(scope='module')
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as `make quickstart` leaves it, after a training of one iteration on a few scenes."""
    folder = tmp_path_factory.mktemp('quickstart')
    with pytest.MonkeyPatch.context() as patch, isolated():
        patch.chdir(folder)
        main(['digits', '--images', '8', '--val-images', '6'])
        options = ['train_cfg.max_iters=1', 'default_hooks.checkpoint.interval=1', 'train_dataloader.batch_size=2']
        main(
            [
                'train',
                'mask_rcnn_rope_mixed_vit_tiny_digits',
                '--work-dir',
                'work_dirs/quickstart',
                '--cfg-options',
                *options,
            ]
        )
    (folder / 'work_dirs/quickstart/iter_1.pth').rename(folder / 'work_dirs/quickstart/iter_860.pth')
    yield folder


@pytest.mark.parametrize('words', lines(ROOT / 'docs/tools.md'), ids=described)
def test_the_tools_run_on_what_the_quickstart_leaves(words, quickstart, monkeypatch) -> None:
    monkeypatch.chdir(quickstart)
    with isolated():
        main(words[1:])


def test_the_table_of_sizes_is_that_of_the_backbones() -> None:
    cells = [line.strip('| ').split(' | ') for line in (ROOT / 'docs/fine_tuning.md').read_text().splitlines()]
    rows = [row for row in cells if row[0].startswith('`mmrope.') and len(row) == 6]
    table = {(row[0].strip('`'), name.strip('`')): row[2:] for row in rows for name in row[1].split(', ')}
    families = {kind.__name__: kind.ARCHS for kind in Family.__subclasses__()}
    expected = {}
    for kind, archs in {'RoPEViT': vit.ARCHS, **families}.items():
        for name, arch in archs.items():
            width = arch['embed_dims']
            expected[f'mmrope.{kind}', name] = [str(n) for n in (width, arch['depth'], arch['num_heads'], width)]
    for name, arch in swin.ARCHS.items():
        width, depths, heads = arch.values()
        widths = [width * 2**stage for stage in range(len(depths))]
        listed = [', '.join(map(str, values)) for values in (depths, heads, widths)]
        expected['mmrope.RoPESwin', name] = [str(width), *listed]
    assert table == expected and len(table) > 40


def fine_tunings() -> list[list[str]]:
    return [words for words in lines(ROOT / 'docs/fine_tuning.md') if words[1] == 'tools/train.py']


@pytest.mark.parametrize('words', fine_tunings(), ids=described)
def test_a_fine_tuning_sets_what_the_page_says(words: list[str], tmp_path: Path) -> None:
    """The option is there after all that follows from the data, and the model builds with it."""
    own_data.instances(tmp_path / 'data')
    command = arguments_of(words)
    assert command is not None
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    args = parser.parse_args(command[1])
    cfg = Config.fromfile(ROOT / args.config)
    args.data, cfg.work_dir = str(tmp_path / 'data'), str(tmp_path / 'work')
    train.adapt(cfg, args)
    written = Config.fromfile(tmp_path / 'work' / 'config.py')
    for key, value in (args.cfg_options or {}).items():
        node = written
        for part in key.split('.'):
            node = node[part]
        assert node == value and key
    backbone = dict(written.model.backbone, init_cfg=None)
    with torch.device('meta'):
        model = getattr(mmrope, backbone.pop('type').removeprefix('mmrope.'))(**backbone)
    if 'frozen_stages' in str(args.cfg_options):
        assert not any(param.requires_grad for param in model.blocks.parameters())


@pytest.mark.slow
def test_own_data_from_zero_to_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in lines(ROOT / 'docs/own_data.md'):
        if words[0] == 'mmrope':
            with isolated():
                main(words[1:])
        if words[:2] == ['python', 'docs/export/run_onnx.py']:
            subprocess.run([sys.executable, ROOT / words[1], *words[2:]], check=True)
    assert Path('maps/000000.png').is_file()
    (text,) = blocks('python', ROOT / 'docs/own_data.md')
    names: dict = {}
    with isolated():
        exec(compile(text, 'documents', 'exec'), names)
    prediction = names['prediction']
    assert len(prediction.names) == len(prediction.boxes) == len(prediction.masks) > 0


def test_the_interactive_examples_print_what_they_say() -> None:
    text = '\n'.join(block for block in blocks('python') if block.startswith('>>> '))
    failed, tried = doctest.DocTestRunner().run(doctest.DocTestParser().get_doctest(text, {}, 'documents', None, 0))
    assert tried >= 7 and failed == 0


@pytest.mark.parametrize('text', [text for text in blocks('python') if text.startswith('from mmrope')])
def test_examples_with_weights_load_them(text: str, hub: Hub, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = published.as_file(published.vit('base'))
    hub.files['naver-ai/rope_mixed_deit_base_patch16_LS', 'pytorch_model.bin'] = weights
    names: dict = {}
    exec(compile(text, 'documents', 'exec'), names)
    assert names['model'].embed_dims == 768


@pytest.mark.parametrize('command', commands(), ids=described)
def test_options_of_a_command_fit_its_config(command: list[str]) -> None:
    configured(command)


TRAININGS = [command for command in commands() if any(map(TRAIN.match, command)) and '--data' not in command]


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


@pytest.mark.parametrize('path', configs('[!i]*.py'))
def test_snippets_that_inherit_work_on_every_config(path: Path, tmp_path: Path) -> None:
    assert len(INHERITING) == 3
    for text in INHERITING:
        (tmp_path / 'child.py').write_text(f'_base_ = {str(path)!r}\n{text}')
        cfg = Config.fromfile(tmp_path / 'child.py')
        *before, added = [hook.type for hook in cfg.custom_hooks]
        assert before == [hook.type for hook in Config.fromfile(path).custom_hooks] and f"'{added}'" in text
        assert before[:2] == ['mmrope.FiniteLossHook', 'mmrope.LogFreqsHook']


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
        getattr(mmrope, backbone.pop('type').removeprefix('mmrope.'))(**{**backbone, 'init_cfg': None})
