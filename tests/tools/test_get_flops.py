"""tools/get_flops.py: sizes, the table and the file, on configs of the three hosts."""

import json
from pathlib import Path

import pytest
import torch
from tiny import ROOT, load_tool

DETECTION = str(ROOT / 'configs' / 'mask_rcnn_rope_mixed_vit_tiny_digits.py')


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
        (['96', '128'], [(96, 128)]),
        (['96x128'], [(96, 128)]),
        (['96x128', '64x64', '1024x768'], [(96, 128), (64, 64), (1024, 768)]),
    ],
)
def test_sizes(words: list[str], sizes: list[tuple[int, int]]) -> None:
    assert load_tool('get_flops').sizes_of(words) == sizes


@pytest.mark.parametrize('words', ['96 128 160', '96x128 64', '0', '96x', 'x', '-5x5', '96,128'])
def test_other_sizes_are_refused(words: str, capsys) -> None:
    with pytest.raises(SystemExit):
        load_tool('get_flops').main([DETECTION, '--size=' + words.split()[0], *words.split()[1:]])
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('get_flops.py: error: ')


def test_the_table_and_the_file_say_the_same(tmp_path: Path, capsys) -> None:
    out = tmp_path / 'flops.json'
    load_tool('get_flops').main([DETECTION, '--size', '64x96', '128x128', '--out', str(out)])
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
    load_tool('get_flops').main(
        [config, '--size', '64', '--out', str(out), '--cfg-options', 'model.backbone.rope=None']
    )
    (cost,) = json.loads(out.read_text())['costs']
    assert (cost['rotation_flops'], cost['table_flops'], cost['rotation_share']) == (0, 0, 0)


@pytest.mark.parametrize('config', ['mask2former_rope_mixed_swin_s_ade20k', 'dino_rope_mixed_swin_b_coco'])
def test_heads_with_queries_count(config: str, tmp_path: Path) -> None:
    out = tmp_path / 'flops.json'
    load_tool('get_flops').main([str(ROOT / 'configs' / f'{config}.py'), '--size', '256x192', '--out', str(out)])
    (cost,) = json.loads(out.read_text())['costs']
    assert cost['size'] == [256, 192] and min(cost['flops']['backbone'], cost['flops']['heads']) > 1e9


def test_a_size_that_fails_is_named_and_the_others_are_counted(tmp_path: Path, monkeypatch, capsys) -> None:
    tool, out = load_tool('get_flops'), tmp_path / 'new/flops.json'
    count = tool.config_cost

    def fail(cfg, size, device):
        if size == (96, 96):
            raise RuntimeError('not enough memory')
        return count(cfg, size, device)

    monkeypatch.setattr(tool, 'config_cost', fail)
    with pytest.raises(SystemExit) as stop:
        tool.main([DETECTION, '--size', '96x96', '64x64', '--out', str(out)])
    assert stop.value.code == 'get_flops.py: 1 skipped, 1 counted'
    assert 'get_flops.py: skipped: 96x96: RuntimeError: not enough memory' in capsys.readouterr().err
    assert [cost['size'] for cost in json.loads(out.read_text())['costs']] == [[64, 64]]
    with pytest.raises(SystemExit):
        tool.main([DETECTION, '--size', '64', '--out', str(out)])
    assert f'{out} exists: --overwrite' in capsys.readouterr().err


HOST = """
from mmdet.models import ResNet, RetinaNet, DetDataPreprocessor, FPN, RetinaHead
from mmdet.datasets.transforms import PackDetInputs
from mmcv.transforms import LoadImageFromFile
"""


def test_a_config_in_pure_python_of_a_host_counts_as_the_same_in_texts(write_config, tmp_path: Path) -> None:
    config = Path(write_config(tmp_path, 'detection'))
    text = config.read_text()
    for name in ('ResNet', 'RetinaNet', 'DetDataPreprocessor', 'FPN', 'RetinaHead', 'PackDetInputs'):
        text = text.replace(f"type='{name}'", f'type={name}')
    text = HOST + text.replace("default_scope = 'mmdet'", 'default_scope = None')
    (tmp_path / 'classes.py').write_text(text)
    counted = []
    for path in (config, tmp_path / 'classes.py'):
        load_tool('get_flops').main([str(path), '--size', '64', '--out', str(path.with_suffix('.json'))])
        counted.append(json.loads(path.with_suffix('.json').read_text())['costs'])
    assert counted[0] == counted[1] and counted[0][0]['flops']['backbone'] > 0


def test_a_config_that_pads_to_a_square_is_counted_at_the_size_asked_for(tmp_path: Path) -> None:
    out = tmp_path / 'flops.json'
    config = str(ROOT / 'configs' / 'mask_rcnn_rope_mixed_vit_s_coco.py')
    load_tool('get_flops').main([config, '--size', '160x96', '--out', str(out)])
    (cost,) = json.loads(out.read_text())['costs']
    assert cost['rotation_flops'] == 6 * 384 * 10 * 6 * 12  # 6 FLOPs x channels x tokens x blocks
