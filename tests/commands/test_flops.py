"""``mmrope flops``: sizes, the table and the file, on configs of the three hosts."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from mmrope.commands import flops
from mmrope.commands.cli import parse_pixels
from mmrope.commands.config import load_config
from mmrope.commands.flops import count_config
from mmrope.commands.main import main
from tests.helpers.tiny import ROOT

DETECTION = str(ROOT / 'configs' / 'mask_rcnn_rope_mixed_vit_tiny_digits.py')
UPERNET = 'upernet_rope_mixed_vit_b_ade20k'


@pytest.fixture(autouse=True)
def _cheap_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ('backbone', 'vit'):
        monkeypatch.setattr(
            f'mmrope.models.{module}.trunc_normal_', lambda x, std: torch.nn.init.uniform_(x, -std, std)
        )


@pytest.mark.parametrize(
    'words, sizes',
    [
        (['96'], [(96, 96)]),
        (['96', '128'], [(96, 96), (128, 128)]),
        (['96x128'], [(96, 128)]),
        (['96x128', '64', '102x76'], [(96, 128), (64, 64), (102, 76)]),
    ],
)
def test_a_list_of_sizes_is_several_sizes(
    words: list[str], sizes: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []
    monkeypatch.setattr(flops, 'count_config', lambda cfg, size, device: counted.append(tuple(size)))
    monkeypatch.setattr(flops, 'print_costs', lambda costs: None)
    main(['flops', DETECTION, '--size', *words])
    assert counted == sizes


@pytest.mark.parametrize(
    'config, size', [(DETECTION, (128, 128)), ('imagenet_rope_mixed_vit_b', (224, 224)), (UPERNET, (512, 512))]
)
def test_the_size_of_the_tests_is_the_default(
    config: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []
    monkeypatch.setattr(flops, 'count_config', lambda cfg, size, device: counted.append(tuple(size)))
    monkeypatch.setattr(flops, 'print_costs', lambda costs: None)
    main(['flops', config])
    assert counted == [size]


@pytest.mark.parametrize('word', ['0', '96x', 'x', '-5x5', '96,128', '96x128x3', 'short:96'])
def test_other_sizes_are_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(['flops', DETECTION, f'--size={word}'])
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('mmrope flops: error: argument --size') and repr(word) in error


def test_the_table_and_the_file_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / 'flops.json'
    main(['flops', DETECTION, '--size', '64x96', '128x128', '--out', str(out)])
    result = json.loads(out.read_text())
    first, second = result['costs']
    assert (result['config'], first['size'], second['size']) == (DETECTION, [64, 96], [128, 128])
    table = capsys.readouterr().out
    for cost in (first, second):
        (line,) = [line for line in table.splitlines() if f'{cost["size"][0]} x {cost["size"][1]}' in line]
        for value in (cost['flops']['total'] / 1e9, cost['params']['total'] / 1e6):
            assert f' {value:.3f} ' in line or f' {value:.2f} ' in line
        assert f'{cost["rotation_share"]:.4%}' in line
    assert second['rotation_flops'] == 6 * 128 * 16 * 16 * 6  # 6 FLOPs x channels x tokens x blocks
    assert 'neck' in table and '1 multiply-add = 2 FLOPs' in table


def test_options_change_the_model(tmp_path: Path) -> None:
    out = tmp_path / 'flops.json'
    config = str(ROOT / 'configs' / 'upernet_rope_mixed_vit_tiny_digits.py')
    main(['flops', config, '--size', '64', '--out', str(out), '--cfg-options', 'model.backbone.rope=None'])
    (cost,) = json.loads(out.read_text())['costs']
    assert (cost['rotation_flops'], cost['table_flops'], cost['rotation_share']) == (0, 0, 0)


@pytest.mark.parametrize('config', ['mask2former_rope_mixed_swin_s_ade20k', 'dino_rope_mixed_swin_b_coco'])
def test_heads_with_queries_count(config: str, tmp_path: Path) -> None:
    out = tmp_path / 'flops.json'
    main(['flops', str(ROOT / 'configs' / f'{config}.py'), '--size', '256x192', '--out', str(out)])
    (cost,) = json.loads(out.read_text())['costs']
    assert cost['size'] == [256, 192] and min(cost['flops']['backbone'], cost['flops']['heads']) > 1e9


def test_a_size_that_fails_is_named_and_the_others_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, count = tmp_path / 'new/flops.json', flops.count_config

    def fail(cfg: Config, size: tuple[int, int], device: str) -> Any:
        if tuple(size) == (96, 96):
            raise RuntimeError('not enough memory')
        return count(cfg, size, device)

    monkeypatch.setattr(flops, 'count_config', fail)
    with pytest.raises(SystemExit) as stop:
        main(['flops', DETECTION, '--size', '96x96', '64x64', '--out', str(out)])
    assert re.match(r'mmrope flops: 1\b.*\b1\b', stop.value.code)
    assert re.search('mmrope flops: skipped: 96x96.*not enough memory', capsys.readouterr().err)
    assert [cost['size'] for cost in json.loads(out.read_text())['costs']] == [[64, 64]]
    with pytest.raises(SystemExit):
        main(['flops', DETECTION, '--size', '64', '--out', str(out)])
    assert re.search(f'{out} .*--overwrite', capsys.readouterr().err)


HOST = """
from mmdet.models import ResNet, RetinaNet, DetDataPreprocessor, FPN, RetinaHead
from mmdet.datasets.transforms import PackDetInputs
from mmcv.transforms import LoadImageFromFile
"""


def test_a_config_in_pure_python_of_a_host_counts_as_the_same_in_texts(
    write_config: Callable[..., str], tmp_path: Path
) -> None:
    config = Path(write_config(tmp_path, 'detection'))
    text = config.read_text()
    for name in ('ResNet', 'RetinaNet', 'DetDataPreprocessor', 'FPN', 'RetinaHead', 'PackDetInputs'):
        text = text.replace(f"type='{name}'", f'type={name}')
    text = HOST + text.replace("default_scope = 'mmdet'", 'default_scope = None')
    (tmp_path / 'classes.py').write_text(text)
    counted = []
    for path in (config, tmp_path / 'classes.py'):
        main(['flops', str(path), '--size', '64', '--out', str(path.with_suffix('.json'))])
        counted.append(json.loads(path.with_suffix('.json').read_text())['costs'])
    assert counted[0] == counted[1] and counted[0][0]['flops']['backbone'] > 0


def test_a_config_that_pads_to_a_square_is_counted_at_the_size_asked_for(tmp_path: Path) -> None:
    out = tmp_path / 'flops.json'
    config = str(ROOT / 'configs' / 'mask_rcnn_rope_mixed_vit_s_coco.py')
    main(['flops', config, '--size', '160x96', '--out', str(out)])
    (cost,) = json.loads(out.read_text())['costs']
    assert cost['rotation_flops'] == 6 * 384 * 10 * 6 * 12  # 6 FLOPs x channels x tokens x blocks


def test_vit_b_has_its_known_size_and_the_rotation_is_small_in_every_unit() -> None:
    cost = count_config(load_config('imagenet_rope_mixed_vit_b'), parse_pixels('224'))
    assert cost.params['total'] == 86_444_008
    assert cost.flops['total'] / 2 == pytest.approx(17.56e9, rel=1e-3)  # multiply-adds
    assert cost.flops['heads'] == 2 * 768 * 1000
    assert cost.rotation_flops == 12 * 196 * 768 * 6
    assert f'{cost.rotation_share:.3%}' == '0.031%'
    # a complex multiplication, for a pair of q or k, as one operation, over multiply-adds
    assert f'{cost.rotation_flops / 6 / (cost.flops["total"] / 2):.2%}' == '0.01%'


@pytest.mark.parametrize(
    'name, changes',
    [
        ('mask_rcnn_rope_mixed_vit_tiny_digits', {}),
        (
            'upernet_rope_mixed_swin_tiny_digits',
            {'model.neck': None, 'model.decode_head.in_channels': [48, 96, 192]},
        ),
    ],
    ids=['mask_rcnn', 'upernet without a neck'],
)
def test_a_whole_model_is_its_parts(name: str, changes: dict) -> None:
    cfg = load_config(name)
    cfg.merge_from_dict(changes)
    cost, larger = (count_config(cfg, parse_pixels(size)) for size in ('72x100', '96x128'))
    assert cost.size == (72, 100)
    for counts in (cost.params, cost.flops):
        assert counts['total'] == counts['backbone'] + counts['neck'] + counts['heads']
        assert counts['backbone'] > 0 and counts['heads'] > 0 and (counts['neck'] > 0) == name.startswith('mask')
    assert larger.params == cost.params and larger.flops['backbone'] > cost.flops['backbone']
