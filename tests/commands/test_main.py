"""``mmrope`` and its commands: how they are found, that their help is light, and how they name a config."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mmrope
from mmrope.commands.errors import CommandError
from mmrope.commands.main import COMMANDS, main
from tests.helpers.tiny import load_tool, python_path

TOOLS = {
    'train': 'train',
    'test': 'test',
    'demo': 'demo',
    'test_resolutions': 'sweep',
    'analyze_attention': 'attention',
    'analyze_frequencies': 'frequencies',
    'get_flops': 'flops',
    'benchmark': 'benchmark',
    'export_onnx': 'export',
    'convert_weights': 'convert',
    'list_weights': 'weights',
    'make_digits': 'digits',
    'plot_training': 'plot',
}
LIGHT = """
import contextlib, io, json, sys
from mmrope.commands.main import main

helps = {}
for command in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main([command, '--help'] if command else ['--help'])
    helps[command] = out.getvalue()
for options in ([], ['--format', 'markdown'], ['--format', 'json']):
    with contextlib.redirect_stdout(io.StringIO()):
        main(['weights', *options])
print(json.dumps([helps, sorted({name.partition('.')[0] for name in sys.modules})]))
"""
HEAVY = {'torch', 'numpy', 'timm', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'matplotlib', 'PIL', 'cv2'}


def test_help_and_the_list_of_weights_import_neither_torch_nor_a_host() -> None:
    command = [sys.executable, '-c', LIGHT, '', *COMMANDS]
    done = subprocess.run(command, env=os.environ | {'PYTHONPATH': python_path()}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    helps, modules = json.loads(done.stdout)
    assert 'rich' in modules and HEAVY.isdisjoint(modules)
    for name, text in COMMANDS.items():
        assert helps[name].startswith(f'usage: mmrope {name} ') and '--traceback' in helps[name]
        assert f'  {name} ' in helps[''] and text in helps['']


@pytest.mark.parametrize('name, command', TOOLS.items(), ids=TOOLS)
def test_the_files_of_tools_are_the_commands(name: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    tool = load_tool(name).main
    assert tool.args == (command, f'{name}.py')
    with pytest.raises(SystemExit):
        tool(['--help'])
    assert capsys.readouterr().out.startswith(f'usage: {name}.py ')


def test_every_command_has_a_file_in_tools_but_the_one_of_the_environment() -> None:
    assert sorted([*TOOLS.values(), 'ops']) == sorted(COMMANDS)


def test_an_unknown_command_is_named_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(['trian', 'config.py'])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "'trian'" in error and all(name in error for name in COMMANDS)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(['--version'])
    assert (stop.value.code, capsys.readouterr().out) == (0, f'{mmrope.__version__}\n')


def test_an_error_is_one_sentence_or_with_traceback_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(['flops', 'nowhere.py'])
    line = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 1 and line.startswith('mmrope flops: error: ') and 'nowhere.py' in line
    with pytest.raises(CommandError, match=r'nowhere\.py'):
        main(['flops', 'nowhere.py', '--traceback'])


def test_a_command_takes_a_config_by_its_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main(['flops', 'mask_rcnn_rope_mixed_vit_tiny_digits', '--size', '64'])
    assert '64 x 64' in capsys.readouterr().out


@pytest.mark.parametrize('command, folder', [('train', '<name of'), ('test', '<name of'), ('sweep', 'resolutions')])
def test_help_says_the_work_dir(command: str, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, '--help'])
    assert re.search(rf'\(default: [^)]*work_dirs/{folder}', ' '.join(capsys.readouterr().out.split()))


@pytest.mark.parametrize('kind', ['json', 'markdown', 'table'])
def test_a_reader_that_leaves_early_is_no_error(kind: str) -> None:
    command = [sys.executable, '-m', 'mmrope', 'weights', '--format', kind]
    environment = os.environ | {'PYTHONPATH': python_path()}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b''
    assert process.returncode == 1
    subprocess.run(['sh', '-c', '"$@" >&-', '', *command], env=environment, check=True)  # without any stdout


def test_an_installed_mmrope_runs_as_a_module() -> None:
    command = [sys.executable, '-m', 'mmrope', '--version']
    done = subprocess.run(command, env=os.environ | {'PYTHONPATH': python_path()}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f'{mmrope.__version__}\n')
