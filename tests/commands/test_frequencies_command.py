"""``mmrope frequencies``: what it writes, prints and refuses."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmrope import RoPEViT
from mmrope.commands.main import main
from tests.helpers.tiny import ROOT, figures

ARCH = dict(embed_dims=32, depth=3, num_heads=2)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, str]]:
    """Return a function that writes a config and a checkpoint of its backbone."""
    monkeypatch.chdir(tmp_path)
    base = str(ROOT / 'configs' / 'mask_rcnn_rope_mixed_vit_tiny_digits.py')

    def write(**backbone: Any) -> tuple[str, str]:
        settings = dict(arch=dict(_delete_=True, **ARCH), global_attn_indexes=(), **backbone)
        Path('config.py').write_text(f'_base_ = {base!r}\nmodel = dict(backbone={settings!r})\n')
        model = RoPEViT(arch=ARCH, patch_size=8, layer_scale_init_value=None, **backbone)
        torch.save(model.state_dict(), 'initial.pth')
        for block in model.blocks[1:]:
            if backbone.get('rope', 'mixed') == 'mixed':
                block.attn.rope.freqs.data *= 1.5
        torch.save(model.state_dict(), 'model.pth')
        return 'config.py', 'model.pth'

    return write


def test_frequencies_and_their_changes_are_written(
    files: Callable[..., tuple[str, str]],
    tiny_data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = figures(monkeypatch)
    image = str(tiny_data / 'images' / '0.png')
    options = ['--initial', 'initial.pth', '--out', 'out', '--grid', '20', '--image', image]
    main(['frequencies', *files(), *options])
    result = json.loads(Path('out/frequencies.json').read_text())
    state = torch.load('model.pth')
    assert list(result['blocks']) == [f'blocks.{i}' for i in range(3)]
    for name, block in result['blocks'].items():
        learned = state[f'{name}.attn.rope.freqs']
        assert torch.tensor(block['freqs']).permute(2, 0, 1) == pytest.approx(learned)
        expected = 0 if name == 'blocks.0' else 0.5
        assert [head['change'] for head in block['changes']] == pytest.approx([expected] * 2, abs=1e-6)
    missed = result['reconstruction']['missed_variance']
    assert list(missed) == ['spot', 'diagonal bar', 'ring', 'image']
    assert all(0 <= value <= 1 for row in missed.values() for value in row.values())
    assert (result['theta'], result['axial_theta'], result['reconstruction']['grid']) == (10, 100, 20)
    plane, reconstruction = drawn
    assert [axis.get_title() for axis in plane.axes] == list(result['blocks'])
    assert [text.get_text() for text in plane.legends[0].get_texts()][:3] == ['axial', 'initial', 'learned']
    assert len(reconstruction.axes) == 4 * (6 + 1)  # a scale of colours for each row
    printed = capsys.readouterr().out
    assert 'blocks.2' in printed and 'at least' not in printed and f'{missed["ring"]["axial"]:.3f}' in printed


def test_without_the_initial_checkpoint_the_change_is_a_lower_bound(
    files: Callable[..., tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    main(['frequencies', *files(), '--out', 'out'])
    assert 'at least' in capsys.readouterr().out
    (first, _, third) = json.loads(Path('out/frequencies.json').read_text())['blocks'].values()
    assert first['changes'][0]['change'] == pytest.approx(0, abs=1e-6)
    assert third['changes'][1]['change'] == pytest.approx(0.5, abs=1e-6)


def test_axial_frequencies_have_no_changes(files: Callable[..., tuple[str, str]]) -> None:
    main(['frequencies', *files(rope='axial', rope_theta=30.0), '--out', 'out'])
    result = json.loads(Path('out/frequencies.json').read_text())
    assert [block['changes'] for block in result['blocks'].values()] == [[]] * 3
    assert list(result['reconstruction']['missed_variance']['spot']) == ['axial']
    assert result['axial_theta'] == 30


@pytest.mark.parametrize(
    'backbone, options, words',
    [
        (dict(rope=None, ape=True), [], 'CONFIG.*rope=None'),
        ({}, ['--grid', '4'], r'--grid.*\b8\b.*\b4\b'),
        ({}, ['--image', 'config.py'], r'--image.*\bconfig\.py'),
        ({}, ['--block', '3'], r'--block.*\b0\b.*\b2\b.*\b3\b'),
        ({}, ['--initial', 'none.pth'], r'--initial.*none\.pth'),
    ],
)
def test_a_mistake_ends_in_one_sentence(
    files: Callable[..., tuple[str, str]], capsys: pytest.CaptureFixture[str], backbone: dict, options: list, words: str
) -> None:
    with pytest.raises(SystemExit):
        main(['frequencies', *files(**backbone), '--out', 'out', *options])
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.match(f'mmrope frequencies: error: {words}', error)


def test_results_are_replaced_on_request_only(
    files: Callable[..., tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    Path('out').mkdir()
    Path('out/frequencies.json').write_text('mine')
    arguments = [*files(), '--out', 'out', '--grid', '8']
    with pytest.raises(SystemExit):
        main(['frequencies', *arguments])
    assert re.search('out/frequencies.json .*--overwrite', capsys.readouterr().err)
    assert Path('out/frequencies.json').read_text() == 'mine'
    main(['frequencies', *arguments, '--overwrite'])
    assert json.loads(Path('out/frequencies.json').read_text())['reconstruction']['grid'] == 8


def test_a_dark_image_is_refused(files: Callable[..., tuple[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    """12 bits in 16: it would be represented as black."""
    Image.fromarray(np.linspace(0, 4095, 256).astype(np.uint16).reshape(16, 16)).save('cells.png')
    with pytest.raises(SystemExit):
        main(['frequencies', *files(), '--out', 'out', '--image', 'cells.png'])
    assert re.search(r'--image.*\bcells\.png\b.*\buint16\b.*\b4095\b', capsys.readouterr().err)
