"""What a figure says of itself: each mark is named, and an axis that was left without numbers has them."""

from pathlib import Path

import pytest
from matplotlib.colors import to_hex

from mmrope import RoPEViT
from mmrope.analysis.attention import BlockStatistics
from mmrope.analysis.figures import draw_attention, draw_frequencies
from mmrope.analysis.frequencies import frequencies_of
from mmrope.analysis.plotting import GREY, draw_panels
from tests.helpers.tiny import figures


def test_marks_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = figures(monkeypatch)
    panels = {'ViT': {'APE': [(36, 1.0), (36, 3.0), (48, 2.0)]}, 'Swin': {'RPB': [(36, 1.0), (48, 2.0)]}}
    draw_panels(panels, {36: '36', 48: '48'}, tmp_path / 'plot.png', 'accuracy (%)', dashed=48)
    legends = [[text.get_text() for text in axis.get_legend().get_texts()] for axis in drawn[0].axes]
    assert legends == [['APE', 'trained at 48 pixels', 'one measurement'], ['RPB', 'trained at 48 pixels']]


def test_time_and_memory_begin_at_zero_and_metrics_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = figures(monkeypatch)
    panels = {name: {'ViT': [(32, 30.0), (64, 31.0)]} for name in ('box mAP', 'time (s)', 'memory (GiB)')}
    draw_panels(panels, {32: '32', 64: '64'}, tmp_path / 'plot.png')
    lowest = [axis.get_ylim()[0] for axis in drawn[0].axes]
    assert lowest[0] > 29 and lowest[1:] == [0, 0]


def test_the_lowest_panel_of_each_column_has_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = figures(monkeypatch)
    frequencies = frequencies_of(RoPEViT(dict(embed_dims=16, depth=6, num_heads=2)))
    draw_frequencies(frequencies, None, tmp_path / 'plot.png')
    labelled = [axis.get_title() for axis in drawn[0].axes if axis.get_xlabel()]
    numbered = [axis.get_title() for axis in drawn[0].axes if axis.xaxis.get_tick_params()['labelbottom']]
    assert labelled == [f'blocks.{i}' for i in range(2, 6)] and set(labelled) <= set(numbered)


@pytest.mark.parametrize('other, shared', [(7.0, True), (9.0, False)])
def test_uniform_attention_is_grey_where_it_is_one_line(
    other: float, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = figures(monkeypatch)

    def block(uniform: float) -> BlockStatistics:
        return BlockStatistics('blocks.0', 16, [(8, 8)], [(8, 8)], [1.0, 2.0], [1.0, 2.0], uniform, uniform)

    draw_attention({'mixed': [block(7.0)], 'axial': [block(other)]}, tmp_path / 'plot.png')
    dashed = [line for line in drawn[0].axes[1].get_lines() if line.get_linestyle() == '--']
    assert [to_hex(line.get_color()) == GREY for line in dashed] == [shared] * 2
