"""``mmrope plot``, also as tools/plot_training.py: what it reads from a work dir, draws and prints."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mmrope.commands import plot
from tests.helpers.tiny import figures, load_tool

INTERVAL = 10
main = load_tool('plot_training').main


def write_part(work_dir: Path, stamp: str, records: list[dict[str, Any]], tail: str = '') -> None:
    """Write one part of a run as MMEngine leaves it."""
    scalars = work_dir / stamp / 'vis_data' / 'scalars.json'
    scalars.parent.mkdir(parents=True)
    scalars.write_text('\n'.join(json.dumps(record) for record in records) + '\n' + tail)


def epochs(first: int, last: int, length: int, loss: float) -> list[dict[str, Any]]:
    """Records of an epoch-based run: validations count epochs, and the end of an epoch is not logged."""
    records: list[dict[str, Any]] = []
    for epoch in range(first, last + 1):
        for inner in range(INTERVAL, length + 1, INTERVAL):
            iteration = (epoch - 1) * length + inner
            records.append(dict(lr=1e-4, loss=loss, epoch=epoch, iter=iteration, step=iteration))
        records.append({'coco/bbox_mAP': 0.1 * epoch, 'coco/segm_mAP': 0.05 * epoch, 'time': 1.0, 'step': epoch})
    return records


def test_a_validation_lies_at_the_last_logged_iteration(tmp_path: Path) -> None:
    write_part(tmp_path, '20260101_100000', epochs(1, 3, length=37, loss=1.0))
    losses, metrics = plot.read_history(tmp_path)
    assert list(losses) == [10, 20, 30, 47, 57, 67, 84, 94, 104]
    assert metrics['bbox_mAP'] == pytest.approx({30: 0.1, 67: 0.2, 104: 0.3})
    assert set(metrics) == {'bbox_mAP', 'segm_mAP'}


@pytest.mark.parametrize('step, at', [(0, 40), (40, 40), (43, 43)])
def test_validations_of_iterations(tmp_path: Path, step: int, at: int) -> None:
    """Their step is the iteration, logged or not, or 0 where the config lets it count epochs."""
    records = [dict(lr=1.0, loss=1.0, iter=iteration, step=iteration) for iteration in (10, 20, 30, 40)]
    write_part(tmp_path, '20260101_100000', [*records, dict(mIoU=40.0, aAcc=80.0, step=step)])
    assert plot.read_history(tmp_path)[1] == {'mIoU': {at: 40.0}}


def test_metrics_of_several_evaluators_keep_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = figures(monkeypatch)
    records = [
        dict(loss=1.0, iter=10, step=10),
        {'day/mIoU': 70.0, 'night/mIoU': 30.0, 'coco/bbox_mAP': 0.5, 'step': 10},
    ]
    write_part(tmp_path, '20260101_100000', records)
    losses, metrics = plot.read_history(tmp_path)
    assert metrics == {'bbox_mAP': {10: 0.5}, 'day/mIoU': {10: 70.0}, 'night/mIoU': {10: 30.0}}
    plot.draw(losses, metrics, tmp_path / 'curves.png')
    labels = [text.get_text() for text in drawn[-1].axes[1].get_legend().get_texts()]
    assert labels == ['box mAP', 'day: mIoU (%)', 'night: mIoU (%)']


def test_a_resumed_run_replaces_what_it_did_again(tmp_path: Path) -> None:
    write_part(tmp_path, '20260101_100000', epochs(1, 4, length=37, loss=1.0))
    write_part(tmp_path, '20260102_100000', epochs(3, 5, length=37, loss=2.0), tail='{"lr": 0.1, "lo')
    (tmp_path / '20260103_100000').mkdir()  # a test leaves no scalars
    losses, metrics = plot.read_history(tmp_path)
    assert list(losses) == [10, 20, 30, 47, 57, 67, 84, 94, 104, 121, 131, 141, 158, 168, 178]
    assert list(losses.values()) == [1.0] * 6 + [2.0] * 9
    assert list(metrics['bbox_mAP']) == [30, 67, 104, 141, 178]


def test_a_run_that_began_anew_replaces_all(tmp_path: Path) -> None:
    write_part(tmp_path, '20260101_100000', epochs(1, 4, length=37, loss=1.0))
    write_part(tmp_path, '20260102_100000', epochs(1, 1, length=37, loss=2.0))
    losses, metrics = plot.read_history(tmp_path)
    assert set(losses.values()) == {2.0}
    assert list(metrics['bbox_mAP']) == [30]


def test_the_picture_and_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Path('run')
    write_part(run, '20260101_100000', epochs(1, 3, length=37, loss=1.25))
    (run / 'epoch_3.pth').touch()
    (run / 'last_checkpoint').write_text('/moved/from/epoch_3.pth')
    drawn = figures(monkeypatch)
    main(['run', '--predictions', 'out.pkl'])
    assert (run / 'curves.png').read_bytes()[:4] == b'\x89PNG'
    left, right = drawn[0].axes
    assert [axis.get_xlabel() for axis in (left, right)] == ['iteration'] * 2
    assert left.get_ylabel() == 'training loss'
    assert [text.get_text() for text in right.get_legend().get_texts()] == ['box mAP', 'mask mAP']
    assert right.get_ylim()[0] == 0 and right.get_ylim()[1] > 0.315
    table = capsys.readouterr().out
    for words in (
        'bbox_mAP      │ 0.300 (best 0.300, iteration 104)',
        'segm_mAP      │ 0.150',
        'training loss │ 1.2500',
        'iterations    │ 104',
        'checkpoint    │ run/epoch_3.pth',
        'curves        │ run/curves.png',
        'predictions   │ out.pkl',
    ):
        assert words in table


@pytest.mark.parametrize('separator', ['/', '\\'])
def test_checkpoints_of_another_work_dir_are_not_listed(tmp_path: Path, separator: str) -> None:
    original, copy = tmp_path / 'original', tmp_path / 'copy'
    for folder in (original, copy):
        folder.mkdir()
        (folder / 'epoch_3.pth').touch()
    (copy / 'last_checkpoint').write_text(f'{original}{separator}epoch_3.pth')
    assert plot.find_checkpoints(copy) == [copy / 'epoch_3.pth']
    (copy / 'epoch_3.pth').unlink()
    assert plot.find_checkpoints(copy) == []


def test_a_run_without_validation_has_one_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_part(tmp_path, '20260101_100000', [dict(lr=1.0, loss=1.0, iter=10, step=10)])
    drawn = figures(monkeypatch)
    main([str(tmp_path), '--out', str(tmp_path / 'new' / 'loss.png')])
    assert len(drawn[0].axes) == 1
    assert (tmp_path / 'new' / 'loss.png').is_file()


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['nowhere'], 'nowhere .*scalars.json'),
        (['empty'], 'empty .*scalars.json'),
        (['run', '--out', 'curves.nothing'], "Format 'nothing' is not supported"),
        (['run', '--out', 'file/curves.png'], 'file'),
        (['run', '--out', 'file'], 'file .*--overwrite'),
    ],
)
def test_a_mistake_ends_in_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').touch()
    write_part(tmp_path / 'run', '20260101_100000', [dict(lr=1.0, loss=1.0, iter=10, step=10)])
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 1
    (message,) = capsys.readouterr().err.splitlines()
    assert re.match(f'plot_training.py: error: .*{words}', message)
