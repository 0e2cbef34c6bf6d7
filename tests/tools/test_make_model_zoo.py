"""The model zoo: every config once, with the weights and the numbers that are known, and nothing made up."""

import re
from functools import cache

import pytest
import yaml
from mmengine.config import Config
from tiny import ROOT, load_tool

from mmrope.weights.known import KNOWN, KnownWeights

METAFILE = yaml.safe_load((ROOT / 'configs' / 'metafile.yml').read_text())
MODELS = {model['Name']: model for model in METAFILE['Models']}
PAGE = (ROOT / 'docs' / 'model_zoo.md').read_text()
CONFIGS = sorted(path.stem for path in (ROOT / 'configs').glob('*.py'))
each = pytest.mark.parametrize('name', MODELS)


def pretrained(name: str) -> str | None:
    return MODELS[name].get('Metadata', {}).get('Pretrained')


@cache
def known_weights(name: str) -> KnownWeights | None:
    """The published weights that the backbone of a config starts from."""
    init_cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py').model.backbone.init_cfg
    return next((weights for weights in KNOWN if weights.checkpoint == init_cfg.get('checkpoint')), None)


def row(name: str) -> list[str]:
    """The cells of a config in the page."""
    (line,) = [line for line in PAGE.splitlines() if f'](../configs/{name}.py)' in line]
    return [cell.strip() for cell in line.strip('|').split('|')]


def test_every_config_is_in_the_metafile_and_the_page_once_and_nothing_else_is():
    assert sorted(MODELS) == CONFIGS and len(METAFILE['Models']) == len(CONFIGS)
    assert sorted(re.findall(r'\]\(\.\./configs/(\w+)\.py\)', PAGE)) == CONFIGS
    assert {model['Config'] for model in MODELS.values()} == {f'configs/{name}.py' for name in CONFIGS}
    collections = [collection['Name'] for collection in METAFILE['Collections']]
    assert {model['In Collection'] for model in MODELS.values()} == set(collections)


def test_the_page_is_made_of_the_metafile():
    assert load_tool('make_model_zoo').page(METAFILE) == PAGE
    load_tool('make_model_zoo').main(['--check'])


@each
def test_the_weights_are_those_of_the_config(name):
    weights = known_weights(name)
    assert pretrained(name) == (weights.checkpoint if weights else None)
    owner, published = ('timm', weights.timm) if weights and weights.rpb else ('naver-ai', weights and weights.name)
    assert row(name)[1] == (f'[{published}](https://huggingface.co/{owner}/{published})' if weights else 'none')


@each
@pytest.mark.parametrize('key, cell', [('Published', 2), ('Results', 3)])
def test_numbers_are_the_metafiles_with_their_source(name, key, cell):
    results = MODELS[name].get(key, [])
    if not results:
        unmeasured = ('not trained yet', 'not measured yet', 'see resolution.md')
        assert row(name)[cell] in {'Published': ('none', 'not found'), 'Results': unmeasured}[key]
    for result in results:
        metrics = ', '.join(f'{value} {metric}' for metric, value in result['Metrics'].items())
        assert result['Source'] in METAFILE['Sources']
        (number,) = re.findall(rf'^(\d+)\. {re.escape(result["Source"])}$', PAGE, re.MULTILINE)
        assert row(name)[cell] == f'{metrics} [{number}]'


@pytest.mark.parametrize('name', [name for name in MODELS if name.startswith('imagenet')])
def test_imagenet_accuracies_are_those_of_the_weights(name):
    weights = known_weights(name)
    (published,) = MODELS[name]['Published']
    assert published['Metrics'] == {'top-1 at 224': weights.top1_224, 'top-1 at 384': weights.top1_384}


def test_only_the_quickstarts_have_been_trained_and_reach_what_the_readme_says():
    results = {name: model['Results'][0]['Metrics'] for name, model in MODELS.items() if 'Results' in model}
    assert sorted(results) == [name for name in CONFIGS if name.endswith('_tiny_digits')]
    readme = (ROOT / 'README.md').read_text()
    box, mask = (value / 100 for value in results['mask_rcnn_rope_mixed_vit_tiny_digits'].values())
    assert f'**{box:.3f} box mAP and {mask:.3f} mask mAP**' in readme
    for backbone in ('vit', 'swin'):
        box, mask = (value / 100 for value in results[f'mask_rcnn_rope_mixed_{backbone}_tiny_digits'].values())
        assert f'{box:.3f} box mAP, {mask:.3f} mask mAP' in readme
        assert f'{results[f"upernet_rope_mixed_{backbone}_tiny_digits"]["mIoU"] / 100:.3f} mIoU' in readme
