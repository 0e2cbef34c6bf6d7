"""``mmrope weights``: the same rows in every format, complete also where no terminal says how wide it is."""

import json

import pytest

from mmrope.commands.main import main
from mmrope.weights.known import FAMILY_WEIGHTS, KNOWN

ROW = 'rope_mixed_deit_base_patch16_LS | RoPEViT base | mixed |  |  | 16 |  | 86.4 M | 83.8 | 84.4'


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(['weights', *arguments])
    return capsys.readouterr().out


@pytest.mark.parametrize('arguments, bar', [((), '│'), (('--format', 'markdown'), '|')])
def test_the_table_has_one_line_for_each(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], bar: str
) -> None:
    rows = [[cell.strip() for cell in line.split(bar)[1:-1]] for line in output(capsys, *arguments).splitlines()]
    names = [weights.name for weights in (*KNOWN, *FAMILY_WEIGHTS)]
    assert [row[0] for row in rows if row and row[0] in names] == names
    (row,) = [row for row in rows if row and row[0] == ROW.split(' | ')[0]]
    assert row == [*ROW.split(' | '), 'vit_base_patch16_rope_mixed_224.naver_in1k', 'Apache-2.0']


@pytest.mark.parametrize('arguments, bar', [((), '│'), (('--format', 'markdown'), '|')])
def test_other_families_say_licence_and_gate(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], bar: str
) -> None:
    rows = [[cell.strip() for cell in line.split(bar)[1:-1]] for line in output(capsys, *arguments).splitlines()]
    for row in (
        ['vit_base_patch16_lingbot.robbyant', 'DINOv3ViT base', '', '', 'Apache-2.0'],
        ['vit_pe_spatial_base_patch16_512.fb', 'PEViT spatial_base', '512', '', 'Apache-2.0'],
        ['facebook/dinov3-vitb16-pretrain-lvd1689m', 'DINOv3ViT base', '', 'yes', 'DINOv3'],
    ):
        assert row in rows


def test_json_has_all_that_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row['name']: row for row in json.loads(output(capsys, '--format', 'json'))}
    assert list(rows) == [weights.name for weights in (*KNOWN, *FAMILY_WEIGHTS)]
    assert rows['facebook/sam3']['gated'] and rows['facebook/sam3']['checkpoint'] == 'hf-hub:facebook/sam3'
    row = rows['rope_mixed_deit_base_patch16_LS']
    assert row['checkpoint'] == 'hf-hub:naver-ai/rope_mixed_deit_base_patch16_LS'
    assert (row['top1_224'], row['top1_384'], row['window_size']) == (83.8, 84.4, None)
    assert row['params'] == 86_444_008


def test_another_format_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        output(capsys, '--format', 'yaml')
    assert "invalid choice: 'yaml'" in capsys.readouterr().err
