"""``mmrope convert``: its files load, its report is true, and a mistake is one sentence."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmrope import RoPESwin, RoPEViT
from mmrope.checkpoints.loading import load_checkpoint
from mmrope.commands.main import main
from mmrope.weights import load_pretrained
from tests.helpers.hub import Hub


def convert(arguments: list[str]) -> None:
    main(['convert', *arguments])


@pytest.fixture
def small(tmp_path: Path) -> tuple[str, dict[str, Tensor]]:
    """A mixed ViT as its authors publish them, and timm's names for it."""
    state = timm.create_model('vit_small_patch16_rope_mixed_224', depth=2).state_dict()
    published = {key: value for key, value in state.items() if key != 'rope.freqs'}
    published |= {'freqs': state['rope.freqs'].flatten(2), 'freqs_t_x': torch.zeros(196)}
    torch.save({'model': published}, tmp_path / 'published.pth')
    return str(tmp_path / 'published.pth'), state


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_to_mmrope_and_on_to_timm(
    small: tuple[str, dict], tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, theirs = small
    ours, back = str(tmp_path / f'ours.{suffix}'), str(tmp_path / f'back.{suffix}')
    convert([source, ours])
    expected = [
        rf'RoPEViT\b.*\b{len(theirs) + 1}\b',
        r' freqs -> blocks\.\*\.attn\.rope\.freqs$',
        r'\(freqs_t_x\)$',
        ours,
    ]
    for line, pattern in zip(capsys.readouterr().out.splitlines(), expected, strict=True):
        assert re.search(pattern, line)
    model = RoPEViT(dict(embed_dims=384, depth=2, num_heads=6), with_cls_token=True, final_norm=True)
    assert set(load_pretrained(model, ours).dropped) == {'head.weight', 'head.bias'}
    weights = {key: value for key, value in load_checkpoint(ours).items() if not key.startswith('head.')}
    model.load_state_dict(weights)  # as it is, without mmrope's loader
    convert([ours, back, '--to', 'timm'])
    assert 'blocks.*.attn.rope.freqs -> rope.freqs' in capsys.readouterr().out
    timm.create_model('vit_small_patch16_rope_mixed_224', depth=2).load_state_dict(load_checkpoint(back))
    assert equal(load_checkpoint(back), theirs)


def test_a_dry_run_says_the_same_and_writes_nothing(
    small: tuple[str, dict], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.iterdir())
    convert([small[0], str(tmp_path / 'ours.pth'), '--dry-run'])
    assert sorted(tmp_path.iterdir()) == before
    out = capsys.readouterr().out
    assert ' freqs -> ' in out and re.search(r'\bwould\b.*\bours\.pth|\bours\.pth\b.*\bwould\b', out)


def test_axial_frequencies_of_a_swin_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arch = dict(embed_dims=32, depths=(1, 1), num_heads=(1, 2))
    model = RoPESwin(arch, rope='axial', out_indices=(0, 1))
    constants = {name.replace('rope.freqs', 'rope_freqs'): value for name, value in model.named_buffers()}
    torch.save({'model': {**model.state_dict(), **constants}}, tmp_path / 'axial.pth')
    convert([str(tmp_path / 'axial.pth'), str(tmp_path / 'ours.safetensors')])
    assert re.search(r'\baxial\b.*\brope_theta\W50\b', capsys.readouterr().out)
    model.load_state_dict(load_file(tmp_path / 'ours.safetensors'))


def test_a_repository_is_converted(small: tuple[str, dict], hub: Hub, tmp_path: Path) -> None:
    hub.files['naver-ai/it', 'pytorch_model.bin'] = Path(small[0]).read_bytes()
    convert(['hf-hub:naver-ai/it', str(tmp_path / 'timm.pth'), '--to', 'timm'])
    assert equal(load_checkpoint(tmp_path / 'timm.pth'), small[1])


def test_the_folder_of_the_file_is_made(small: tuple[str, dict], tmp_path: Path) -> None:
    convert([small[0], str(tmp_path / 'new/folder/ours.pth')])
    assert load_checkpoint(tmp_path / 'new/folder/ours.pth')


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ('was_here',)


MISTAKES = {
    'source': (['none.pth', 'b.pth'], r'SRC\b.*none\.pth'),
    'suffix': (['a.pth', 'b.bin'], r"DST\b.*\.pth.*\.safetensors.*'b\.bin'"),
    'folder': (['a.pth', 'a.pth/b.pth'], 'a.pth/b.pth'),
    'a folder': (['a.pth', 'folder.pth'], r'folder\.pth .*folder'),
    'there already': (['a.pth', 'a.pth'], r'\ba\.pth\b.*--overwrite'),
    'no weights': (['empty.pth', 'b.pth'], '.*weights.*state_dict'),
    'no transformer': (['resnet.pth', 'b.pth'], r'ViT.*Swin.*conv1\.weight'),
    'swin to timm': (['swin.pth', 'b.pth', '--to', 'timm'], 'timm.*Swin'),
    'prefix': (['a.pth', 'b.pth', '--prefix', 'neck'], r"prefix='neck\.'"),
    'code': (['malicious.pth', 'b.pth'], r'malicious\.pth\b.*\bmkdir\b'),
    'damaged': (['damaged.safetensors', 'b.pth'], r'damaged\.safetensors\b.*checkpoint'),
}


@pytest.mark.parametrize('arguments, words', MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_ends_in_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    arch = dict(embed_dims=64, depth=1, num_heads=1)
    torch.save(RoPEViT(arch).state_dict(), 'a.pth')
    torch.save({'epoch': 1}, 'empty.pth')
    torch.save({'conv1.weight': torch.ones(1)}, 'resnet.pth')
    swin = RoPESwin(dict(embed_dims=32, depths=(1,), num_heads=(1,)), out_indices=(0,))
    torch.save(swin.state_dict(), 'swin.pth')
    torch.save({'model': RoPEViT(arch).state_dict(), 'extra': Malicious()}, 'malicious.pth')
    Path('damaged.safetensors').write_bytes(b'<html>')
    Path('folder.pth').mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as caught:
        convert(arguments)
    error = capsys.readouterr().err.splitlines()[-1]
    assert caught.value.code == 1 and re.match(f'mmrope convert: error: .*{words}', error), error
    assert sorted(tmp_path.iterdir()) == before


def test_overwriting_and_trust_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = RoPEViT(dict(embed_dims=64, depth=1, num_heads=1)).state_dict()
    torch.save({'model': state, 'extra': Malicious()}, 'a.pth')
    convert(['a.pth', 'a.pth', '--overwrite', '--trust-checkpoint'])
    assert Path('was_here').is_dir()
    assert equal(load_checkpoint('a.pth'), state)  # and is safe from now on


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(RoPEViT(dict(embed_dims=64, depth=1, num_heads=1)).state_dict(), 'a.pth')
    Path('b.pth').write_bytes(b'old')

    def fail(tensors: dict, path: str) -> None:
        Path(path).write_bytes(b'half')
        raise OSError('no space left')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(SystemExit):
        convert(['a.pth', 'b.pth', '--overwrite'])
    assert 'no space left' in capsys.readouterr().err
    assert Path('b.pth').read_bytes() == b'old' and len(list(tmp_path.iterdir())) == 2
