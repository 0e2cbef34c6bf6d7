"""``mmrope export``: the file gives mmrope's maps in ONNX Runtime, and a mistake is one sentence."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import InferenceSession

from mmrope import RoPESwin, RoPEViT
from mmrope.analysis import onnx as onnx_files
from mmrope.commands.main import main

VIT = dict(type='mmrope.RoPEViT', arch=dict(embed_dims=16, depth=2, num_heads=2), patch_size=8, img_size=48)
SWIN = dict(type='mmrope.RoPESwin', arch=dict(embed_dims=16, depths=(2, 1), num_heads=(2, 2)), out_indices=(0, 1))


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the config of a backbone, exports it and returns the file."""

    def export_it(backbone: dict, *arguments: str, more: str = '') -> Path:
        config, out = tmp_path / 'config.py', tmp_path / 'out.onnx'
        config.write_text(f'model = dict(backbone={backbone!r})\n{more}\n')
        main(['export', str(config), str(out), *arguments])
        return out

    return export_it


def weights(model: RoPEViT | RoPESwin, path: Path) -> str:
    """A checkpoint of weights large enough for every part to matter."""
    for param in model.parameters():
        torch.nn.init.normal_(param, std=0.3)
    torch.save(model.eval().state_dict(), path)
    return str(path)


def difference(model: RoPEViT | RoPESwin, path: Path, *shape: int) -> float:
    images = torch.randn(*shape)
    theirs = InferenceSession(str(path), providers=['CPUExecutionProvider']).run(None, {'images': images.numpy()})
    with torch.no_grad():
        ours = [out.numpy() for out in model(images)]
    assert [out.shape for out in ours] == [out.shape for out in theirs]
    return max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True))


class Program:
    """What ``torch.onnx.export`` returns, with a text in place of a model."""

    def __init__(self) -> None:
        self.model = SimpleNamespace(metadata_props={})

    def save(self, path: str, external_data: bool) -> None:
        Path(path).write_text('new')


def made(backbone: dict) -> RoPEViT | RoPESwin:
    kind = {'mmrope.RoPEViT': RoPEViT, 'mmrope.RoPESwin': RoPESwin}[backbone['type']]
    return kind(**{key: value for key, value in backbone.items() if key != 'type'})


def test_a_global_vit_takes_any_batch_and_any_size(
    run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = dict(VIT, ape=True, out_indices=(0, 1))
    model = made(backbone)
    checkpoint = weights(model, tmp_path / 'vit.pth')
    out = run(backbone, '--checkpoint', checkpoint, '--dynamic-batch', '--dynamic-size', '--size', '48')
    for shape in [(1, 3, 48, 48), (3, 3, 61, 100), (2, 3, 100, 33), (1, 3, 1, 1)]:
        assert difference(model, out, *shape) < 1e-4
    file = onnx.load(out)
    assert [output.name for output in file.graph.output] == ['block0', 'block1']
    assert [dim.dim_param for dim in file.graph.input[0].type.tensor_type.shape.dim] == ['batch', '', 'height', 'width']
    assert 'block0, block1' in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ['config.py', 'out.onnx', 'vit.pth']


BACKBONES = {
    'vit': dict(VIT, window_size=3, global_attn_indexes=(1,)),
    'vit axial': dict(VIT, window_size=3, rope='axial'),
    'cls token': dict(VIT, with_cls_token=True, out_type='cls_token', final_norm=True),
    'swin': dict(SWIN, window_size=3),
    'swin axial': dict(SWIN, window_size=3, rope='axial'),
    'swin mixed+rpb': dict(SWIN, window_size=3, rpb=True),
}


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=() if name == 'vit' else pytest.mark.slow) for name in BACKBONES]
)
def test_one_size_that_nothing_divides_and_any_batch(run: Callable[..., Path], tmp_path: Path, name) -> None:
    backbone = BACKBONES[name]
    model = made(backbone)
    checkpoint = weights(model, tmp_path / 'weights.pth')
    out = run(backbone, '--checkpoint', checkpoint, '--dynamic-batch', '--size', '45x67')
    for batch in (1, 4):
        assert difference(model, out, batch, 3, 45, 67) < 1e-4


def test_one_image_of_one_size(run: Callable[..., Path], tmp_path: Path) -> None:
    backbone = dict(SWIN, arch=dict(embed_dims=16, depths=(1,), num_heads=(2,)), out_indices=(0,), window_size=7)
    model = made(backbone)
    init_cfg = dict(type='Pretrained', checkpoint=weights(model, tmp_path / 'weights.pth'))
    out = run(dict(backbone, init_cfg=init_cfg), '--size', '28x56', '--opset', '20')
    assert difference(model, out, 1, 3, 28, 56) < 1e-4
    file = onnx.load(out)
    assert [dim.dim_value for dim in file.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 28, 56]
    assert [output.name for output in file.graph.output] == ['stage0']
    assert [opset.version for opset in file.opset_import if opset.domain == ''] == [20]


@pytest.mark.parametrize(
    'backbone, arguments, message',
    [
        (SWIN, ['--dynamic-size'], r'dynamic_size=True .*window_size\W+7\b'),
        (dict(VIT, window_size=3), ['--dynamic-size'], r'dynamic_size=True .*window_size\W+3\b'),
        (VIT, ['--opset', '16'], r'opset .*\b18\b.*\b16\b'),
        (dict(type='mmdet.ResNet', depth=18), [], r'model\.backbone .*RoPEViT.*RoPESwin.*ResNet'),
        (VIT, ['--checkpoint', 'nowhere.pth'], r'--checkpoint\b.*nowhere\.pth'),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_file(
    run: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    backbone,
    arguments: list,
    message: str,
) -> None:
    with pytest.raises(SystemExit):
        run(backbone, *arguments)
    assert re.match(f'mmrope export: error: .*{message}', capsys.readouterr().err.splitlines()[-1])
    assert [path.name for path in tmp_path.iterdir()] == ['config.py']


def test_values_that_differ_are_an_error_and_leave_the_old_file(
    run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'out.onnx').write_text('old')
    monkeypatch.setattr(onnx_files, 'difference', lambda *args: 2e-4)
    monkeypatch.setattr(torch.onnx, 'export', lambda model, args, **kwargs: Program())
    with pytest.raises(SystemExit):
        run(VIT, '--overwrite')
    assert re.search(r'2\.0e-04.*1e-04', capsys.readouterr().err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['config.py', 'out.onnx']
    assert (tmp_path / 'out.onnx').read_text() == 'old'
    run(VIT, '--no-check', '--overwrite')
    assert (tmp_path / 'out.onnx').read_text() == 'new'


def test_a_file_is_replaced_on_request_only(
    run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'out.onnx').write_text('old')
    with pytest.raises(SystemExit):
        run(VIT)
    assert re.search(f'{tmp_path}/out.onnx .*--overwrite', capsys.readouterr().err)
    assert (tmp_path / 'out.onnx').read_text() == 'old'


PREPROCESSOR = "model['data_preprocessor'] = "
TEST = "test_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile'), {}, dict(type='PackDetInputs')]))"
SIZES = {
    'pipeline': (TEST.format("dict(type='Resize', scale=(100, 60))"), (60, 100), 'Resize'),
    'padded': (
        TEST.format("dict(type='Resize', scale=(100, 60), keep_ratio=True)")
        + f'\n{PREPROCESSOR}dict(pad_size_divisor=32)',
        (64, 128),
        'Resize',
    ),
    'option': (TEST.format("dict(type='Resize', scale=(100, 60))"), (40, 48), '--size'),
    'none': ('', (224, 224), 'config'),
}


@pytest.mark.parametrize('more, size, source', SIZES.values(), ids=SIZES)
def test_the_size_is_that_of_the_tests_and_is_said(
    run: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more,
    size: tuple[int, int],
    source: str,
) -> None:
    exported = []
    monkeypatch.setattr(torch.onnx, 'export', lambda model, args, **_: exported.append(args) or Program())
    run(VIT, '--no-check', *(['--size', '40x48'] if source == '--size' else []), more=more)
    assert exported[0][0].shape == (1, 3, *size)
    out = capsys.readouterr().out
    assert f'{size[0]} x {size[1]} pixels' in out and source in out


def test_the_type_may_be_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a config in pure Python."""
    monkeypatch.setattr(torch.onnx, 'export', lambda model, args, **_: Program())
    config = tmp_path / 'config.py'
    settings = {key: value for key, value in VIT.items() if key != 'type'}
    config.write_text(f'from mmrope.models import RoPEViT\nmodel = dict(backbone=dict(type=RoPEViT, **{settings!r}))')
    main(['export', str(config), str(tmp_path / 'new/out.onnx'), '--no-check'])
    assert (tmp_path / 'new/out.onnx').is_file()
