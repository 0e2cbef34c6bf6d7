"""Who may import whom: the rooms of the package and the arrows between them, read from the imports of every file.

Lazy imports within functions count, and those for type checkers.
"""

import ast
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What each room may import of mmrope. A room stands below those that import it, so there is no circle.
ROOMS = {
    'text': set(),
    'registry': set(),
    'layers': set(),
    'checkpoints': {'text'},
    'models': {'registry', 'text', 'layers'},
    'heads': {'registry', 'text', 'layers', 'models'},
    'ops': set(),
    'weights': {'registry', 'text', 'layers', 'models', 'checkpoints'},
    'analysis': {'registry', 'text', 'layers', 'models'},
    'datasets': {'registry', 'text'},
    'engine': {'registry', 'text', 'layers', 'models', 'checkpoints', 'weights'},
}
ROOMS['commands'] = {'mmrope', *ROOMS}
ROOMS['tools'] = {'commands'}
HOSTS = {'mmdet', 'mmseg', 'mmpretrain', 'mmcv'}
# Packages that a room may not import; `layers` has a list of those it may.
FORBIDDEN = {
    **{
        room: {*HOSTS, 'argparse'}
        for room in ('text', 'registry', 'checkpoints', 'models', 'weights', 'analysis', 'engine')
    },
    **{room: {'argparse'} for room in ('heads', 'ops', 'datasets')},
}
LAYERS_MAY = {'torch', 'timm', 'triton', *sys.stdlib_module_names} - {'argparse'}


def imports(source: str, package: list[str]) -> Iterator[str]:
    """Yield the full name of everything that a module imports, ``import_module('name')`` included.

    Args:
        source: text of the module.
        package: parts of the name of the package that the module is in.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            parts = [*base, *filter(None, [node.module])]
            yield from ('.'.join([*parts, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition('.')[2] == 'import_module':
            name = node.args[0].value if isinstance(node.args[0], ast.Constant) else ''
            yield resolve_name(name, '.'.join(package))


def room_of(name: str) -> str:
    """Return the room of a name within mmrope; ``'mmrope'`` for the package itself, which imports lazily."""
    parts = name.split('.')
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else 'mmrope'


def wrong(room: str, name: str) -> bool:
    package = name.partition('.')[0]
    if package == 'mmrope':
        return room_of(name) not in {room, *ROOMS[room]}
    if room == 'layers':
        return package not in LAYERS_MAY
    return package in FORBIDDEN.get(room, ())


def files(room: str) -> list[Path]:
    if room == 'tools':
        return sorted((ROOT / 'tools').glob('*.py'))
    return sorted((ROOT / 'mmrope').glob(f'{room}/**/*.py')) + sorted((ROOT / 'mmrope').glob(f'{room}.py'))


@pytest.mark.parametrize('room', ROOMS)
def test_a_room_imports_what_it_may(room: str) -> None:
    found = []
    for path in files(room):
        package = list(path.relative_to(ROOT).parent.parts)
        names = imports(path.read_text(), package)
        found += [f'{path.relative_to(ROOT)} imports {name}' for name in names if wrong(room, name)]
    assert not found, '\n'.join(sorted(set(found)))


def test_the_arrows_go_one_way() -> None:
    rooms = list(ROOMS)
    assert all(ROOMS[room] <= {'mmrope', *rooms[:i]} for i, room in enumerate(rooms))


def test_every_file_of_the_package_is_in_a_room() -> None:
    package = ROOT / 'mmrope'
    everything = set(package.rglob('*.py')) - {package / '__init__.py', package / '__main__.py'}
    assert everything == {path for room in ROOMS if room != 'tools' for path in files(room)}
    assert len(everything) > 60 and len(files('tools')) > 10


@pytest.mark.parametrize(
    'room, line',
    [
        ('layers', 'from ..models import vit'),
        ('layers', 'import mmengine'),
        ('models', 'from .. import weights'),
        ('models', 'from ..weights.loading import load_pretrained'),
        ('models', 'def build():\n    from mmcv.cnn import build_norm_layer'),
        ('weights', 'if TYPE_CHECKING:\n    from ..engine import SeedHook'),
        ('checkpoints', 'import mmrope.weights.report as report'),
        ('checkpoints', 'from mmrope import RoPEViT'),
        ('analysis', "importlib.import_module('mmdet.apis')"),
        ('analysis', "import_module('..commands', __package__)"),
        ('engine', 'from ..commands.errors import CommandError'),
        ('engine', 'import argparse'),
        ('tools', 'from mmrope.weights import known'),
    ],
)
def test_a_wrong_import_is_seen(room: str, line: str) -> None:
    package = ['tools'] if room == 'tools' else ['mmrope', room]
    assert [name for name in imports(line, package) if wrong(room, name)]
