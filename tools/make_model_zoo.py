"""Make docs/model_zoo.md of configs/metafile.yml."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
METAFILE, PAGE = ROOT / 'configs' / 'metafile.yml', ROOT / 'docs' / 'model_zoo.md'
HUB = 'https://huggingface.co/'
INTRODUCTION = f"""\
# Model zoo

Every config, the published ImageNet-1k weights that its backbone starts from, what the authors report for such a
model, and what was measured with this repository. *Not found* means that a number could not be read, not that there is
none. No weights with both RoPE and a relative position bias (RPB) are published: its tables start anew. In square
brackets is the number of the source, see the end. `python tools/list_weights.py` lists the weights themselves,
[weights.md](weights.md) says how they are loaded.

This page is made of [configs/metafile.yml](../configs/metafile.yml) by `python tools/{Path(__file__).name}`.
"""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=Path(__file__).name, description=__doc__)
    parser.add_argument('--check', action='store_true', help='write nothing; fail if the page is not up to date')
    return parser.parse_args(arguments)


def numbers(results: list[dict[str, Any]], notes: list[str]) -> str:
    """Write metrics as ``51.2 box AP`` with the number of their source among ``notes``, which grow by a new one."""
    cells = []
    for result in results:
        if result['Source'] not in notes:
            notes.append(result['Source'])
        metrics = ', '.join(f'{value} {name}' for name, value in result['Metrics'].items())
        cells.append(f'{metrics} [{notes.index(result["Source"]) + 1}]')
    return '; '.join(cells)


def weights_of(model: dict[str, Any]) -> str:
    """Write a link to the weights of the backbone."""
    checkpoint = model.get('Metadata', {}).get('Pretrained')
    if checkpoint is None:
        return 'none'
    scheme, _, repository = checkpoint.partition(':')
    repository = f'timm/{repository}' if scheme == 'timm' else repository
    return f'[{repository.partition("/")[2]}]({HUB}{repository})'


def section(collection: dict[str, Any], models: list[dict[str, Any]], notes: list[str]) -> Iterator[str]:
    """Write the lines of one collection."""
    unpublished, unmeasured = (
        collection.get('Unpublished', 'not found'),
        collection.get('Unmeasured', 'not trained yet'),
    )
    yield from (f'## {collection["Name"]}', '', collection['Note'], '')
    yield '| config | weights of the backbone | published | ours |'
    yield '|---|---|---|---|'
    for model in models:
        published = numbers(model.get('Published', []), notes) or unpublished
        ours = numbers(model.get('Results', []), notes) or unmeasured
        link = f'[{model["Name"]}](../{model["Config"]})'
        yield f'| {link} | {weights_of(model)} | {published} | {ours} |'
    yield ''


def page(metafile: dict[str, Any]) -> str:
    """Write the whole page."""
    notes: list[str] = []
    lines = [INTRODUCTION]
    for collection in metafile['Collections']:
        models = [model for model in metafile['Models'] if model['In Collection'] == collection['Name']]
        lines += section(collection, models, notes)
    lines += ['## Sources', '', *(f'{i}. {note}' for i, note in enumerate(notes, 1))]
    return '\n'.join(lines) + '\n'


def main(arguments: Sequence[str] | None = None) -> None:
    """Write or check the page as the command line says."""
    args = parse_arguments(arguments)
    text = page(yaml.safe_load(METAFILE.read_text()))
    if not args.check:
        PAGE.write_text(text)
    elif not PAGE.is_file() or PAGE.read_text() != text:
        sys.exit(f'{PAGE.relative_to(ROOT)} is not up to date: run python tools/{Path(__file__).name}')


if __name__ == '__main__':
    main()
