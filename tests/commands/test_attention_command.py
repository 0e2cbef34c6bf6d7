"""``mmrope attention`` on detectors, segmenters and classifiers: what it writes, prints and refuses."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmrope.analysis.attention import attention_statistics
from mmrope.commands.main import main
from mmrope.commands.models import backbone_of, load_model, prepare_image
from tests.helpers.tiny import ROOT, figures

CONFIGS = {
    'detection': ('mask_rcnn_rope_mixed_vit_tiny_digits.py', dict(embed_dims=16, depth=3, num_heads=2)),
    'segmentation': (
        'upernet_rope_mixed_swin_tiny_digits.py',
        dict(embed_dims=8, depths=(2, 1, 1), num_heads=(1, 2, 2)),
    ),
    'classification': ('imagenet_rope_mixed_vit_s.py', dict(embed_dims=16, depth=2, num_heads=2)),
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return a function that writes a small config of a kind and a checkpoint, and names them."""
    monkeypatch.chdir(tmp_path)

    def write(kind: str, name: str | None = None, **backbone: Any) -> list[str]:
        base, arch = CONFIGS[kind]
        path = tmp_path / f'{name or kind}.py'
        settings = dict(arch=dict(_delete_=True, **arch), init_cfg=None, **backbone)
        if kind == 'detection':
            settings['global_attn_indexes'] = (1,)
        path.write_text(f'_base_ = {str(ROOT / "configs" / base)!r}\nmodel = dict(backbone={settings!r})\n')
        torch.manual_seed(len(str(backbone)))
        model = mmrope_backbone(path)
        torch.save({'state_dict': {f'backbone.{key}': value for key, value in model.items()}}, path.with_suffix('.pth'))
        return [str(path), str(path.with_suffix('.pth'))]

    return write


def mmrope_backbone(config: Path) -> dict[str, torch.Tensor]:
    from mmengine.registry import MODELS

    model = MODELS.build(Config.fromfile(config).model.backbone)
    for name, param in model.named_parameters():
        if name.endswith('qkv.weight'):
            torch.nn.init.normal_(param, std=0.7)
    return model.state_dict()


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for name, shape in (('a.png', (90, 128)), ('b.jpg', (128, 128)), ('c.png', (64, 100))):
        cv2.imwrite(str(folder / name), rng.integers(0, 255, (*shape, 3), dtype=np.uint8))
    return folder


@pytest.mark.parametrize('kind', CONFIGS)
def test_the_numbers_are_those_of_images_as_the_config_feeds_them(
    study: Callable[..., list[str]], images: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    config, checkpoint = study(kind)
    main(['attention', config, checkpoint, '--images', str(images), '--out', 'out'])
    (row,) = json.loads(Path('out/attention.json').read_text())
    assert (row['label'], row['images'], Path('out/attention.png').read_bytes()[:4]) == (kind, 3, b'\x89PNG')
    cfg = Config.fromfile(config)
    model = load_model(cfg, checkpoint, 'cpu')
    fed = [prepare_image(cfg, model, str(images / name)) for name in ('a.png', 'b.jpg', 'c.png')]
    assert {tuple(x.shape) for x in fed} == {
        'detection': {(1, 3, 90, 128), (1, 3, 128, 128), (1, 3, 82, 128)},
        'segmentation': {(1, 3, 48, 64), (1, 3, 64, 64), (1, 3, 44, 64)},
        'classification': {(1, 3, 224, 224)},
    }[kind]
    expected = attention_statistics(backbone_of(model), fed)
    assert [block['block'] for block in row['blocks']] == [block.block for block in expected]
    for ours, theirs in zip(row['blocks'], expected):
        assert ours['distance_px'] == pytest.approx(theirs.distance_px)
        assert ours['entropy_nats'] == pytest.approx(theirs.entropy_nats)
    printed = capsys.readouterr().out
    assert 'wrote out/attention.png' in printed
    for block in expected:
        (line,) = [line for line in printed.splitlines() if f' {block.block} ' in line]
        for heads in (block.distance_px, block.entropy_nats):
            assert f' {mean(heads):.2f} ' in line and f' {min(heads):.2f} - {max(heads):.2f} ' in line


def test_several_checkpoints_share_a_plot_and_a_query_is_drawn(
    study: Callable[..., list[str]], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = figures(monkeypatch)
    pairs = study('detection', 'mixed') + study('detection', 'axial', rope='axial')
    options = ['--query', '100', '40', '--blocks', '2', '1', '--heads', '0', '--max-images', '1']
    main(['attention', *pairs, '--images', str(images / 'a.png'), str(images), *options, '--out', 'out'])
    assert sorted(path.name for path in Path('out').iterdir()) == [
        'attention.json', 'attention.png', 'maps_axial_a.png', 'maps_mixed_a.png',
    ]  # fmt: skip
    maps, curves = drawn[0], drawn[-1]
    *panels, scale = maps.axes
    titles = [axis.get_title() for axis in panels]
    assert titles == [f'blocks.{i}, {what}' for what in ('mean of heads', 'head 0') for i in (2, 1)]
    assert scale.get_ylabel() == 'weight / maximum'
    left, right = curves.axes
    assert (left.get_xlabel(), left.get_ylabel()) == ('block', 'mean attention distance (pixels)')
    assert right.get_ylabel() == 'attention entropy (nats)'
    (legend,) = curves.legends
    assert [text.get_text() for text in legend.get_texts()] == ['mixed', 'axial', 'uniform attention', 'one head']


MISTAKES = {
    'no image': (['--images', 'nowhere.png'], r'--images.*\bnowhere\.png'),
    'empty folder': (['--images', 'empty'], r'--images.*\bempty\b'),
    'outside': (
        ['--query', '128', '0'],
        r'--query.*\b127\b.*\b89\b.*\bx\W+128\W+y\W+0\b',
    ),
    'block': (['--query', '1', '0', '--blocks', '3'], r'--blocks.*\b0\b.*\b2\b.*\[3\]'),
    'head': (['--query', '1', '0', '--heads', '2'], r'--heads.*\b0\b.*\b1\b.*\[2\]'),
    'blocks of nothing': (['--blocks', '1'], '--blocks needs --query'),
    'heads of nothing': (['--heads', '1'], '--heads needs --query'),
    'device': (['--device', 'abacus'], r'--device abacus\b'),
    'option': (['--cfg-options', 'modle.x=1'], "'modle'.*model"),
}


@pytest.mark.parametrize('options, words', MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_ends_in_one_sentence(
    study: Callable[..., list[str]], images: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    Path('empty').mkdir()
    pair = study('detection')
    with pytest.raises(SystemExit):
        main(['attention', *pair, '--images', str(images / 'a.png'), *options])
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.match(f'mmrope attention: error: .*{words}', error)


def test_blocks_and_heads_are_checked_before_any_image(
    study: Callable[..., list[str]], images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr('mmrope.analysis.attention.image_sums', lambda *args: pytest.fail('measured'))
    pair = study('detection', out_indices=(1,))  # the last block does not run
    with pytest.raises(SystemExit):
        main(['attention', *pair, '--images', str(images), '--query', '1', '0', '--blocks', '2'])
    assert re.search(r'--blocks.*\b0\b.*\b1\b.*\[2\]', capsys.readouterr().err)


def test_a_sliding_window_is_said_not_to_slide(
    study: Callable[..., list[str]], images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ['attention', *study('segmentation'), '--images', str(images / 'a.png'), '--out', 'out']
    main([*arguments, '--cfg-options', 'model.test_cfg.mode=slide'])
    assert "segmentation: tests slide a window (model.test_cfg.mode='slide')" in capsys.readouterr().err


def test_a_missing_checkpoint_and_an_odd_name_are_refused(
    study: Callable[..., list[str]], images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, _ = study('detection')
    with pytest.raises(SystemExit):
        main(['attention', config, 'none.pth', '--images', str(images)])
    assert re.search(r'CHECKPOINT\b.*\bnone\.pth', capsys.readouterr().err)
    with pytest.raises(SystemExit):
        main(['attention', config, '--images', str(images)])
    assert re.search(r'CONFIG CHECKPOINT\b.*\b1\b', capsys.readouterr().err)


def test_a_bad_image_and_a_bad_model_are_named_and_the_rest_is_kept(
    study: Callable[..., list[str]],
    images: Path,
    write_config: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A strip is no pixel high at the size of the config; a host's own backbone has nothing to study."""
    folder = tmp_path / 'images'
    shutil.copytree(images, folder)
    (folder / 'broken.png').write_bytes(b'no image')
    (folder / 'notes.txt').touch()
    cv2.imwrite(str(folder / 'strip.png'), np.zeros((2, 3000, 3), np.uint8))
    good, missing = study('detection'), ['none.py', 'none.pth']
    host = [write_config(tmp_path, 'segmentation'), good[1]]
    arguments = [*host, *good, *missing, '--images', str(folder), '--labels', 'host', 'good', 'missing']
    with pytest.raises(SystemExit) as stop:
        main(['attention', *arguments, '--query', '120', '85', '--out', 'out'])
    assert re.match(r'mmrope attention: 6\b.*\b1\b.*\b3\b', stop.value.code)
    error = capsys.readouterr().err
    for words in (
        f'{folder}/broken.png',
        f'notes.txt.* {folder}',
        f'good.* {folder}/strip.png',
        f'good.* {folder}/c.png.*--query',  # 128 x 82 pixels, as the network is fed it
        r'host\b.*model\.backbone .*RoPEViT.*RoPESwin.*ResNetV1c',
        r'missing\b.*config.* none\.py',
    ):
        assert re.search(f'mmrope attention: skipped: {words}', error)
    (row,) = json.loads(Path('out/attention.json').read_text())
    assert (row['label'], row['images']) == ('good', 2)
    assert {path.name for path in Path('out').iterdir()} == {
        'attention.json', 'attention.png', 'maps_good_a.png', 'maps_good_b.png',
    }  # fmt: skip


def test_results_are_replaced_on_request_only(
    study: Callable[..., list[str]], images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path('out').mkdir()
    arguments = [*study('detection'), '--images', str(images / 'a.png'), '--out', 'out']
    for name in ('attention.json', 'attention.png'):
        Path('out', name).write_text('mine')
        with pytest.raises(SystemExit):
            main(['attention', *arguments])
        assert re.search(f'out/{name} .*--overwrite', capsys.readouterr().err)
        Path('out', name).unlink()
    Path('out/attention.json').write_text('mine')
    main(['attention', *arguments, '--overwrite'])
    assert json.loads(Path('out/attention.json').read_text())[0]['images'] == 1


def test_another_backbone_is_refused(
    study: Callable[..., list[str]],
    write_config: Callable[..., str],
    tmp_path: Path,
    images: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = write_config(tmp_path, 'detection')
    with pytest.raises(SystemExit):
        main(['attention', config, study('segmentation')[1], '--images', str(images)])
    assert re.search(r'model\.backbone .*RoPEViT.*RoPESwin.*ResNet', capsys.readouterr().err)
