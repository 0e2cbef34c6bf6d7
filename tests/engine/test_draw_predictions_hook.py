"""Drawn predictions, where they are and under which names, and those in a file."""

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmseg.visualization import SegLocalVisualizer
from PIL import Image
from pycocotools.mask import area

from mmrope.engine import DrawPredictionsHook
from mmrope.engine.draw_predictions_hook import DumpPredictions, folder_of, innermost, label_place, name_below


class Sample(SimpleNamespace):
    """A data sample with the parts that the hook asks for."""

    def __contains__(self, key: str) -> bool:
        return hasattr(self, key)


class Drawer:
    """A visualizer that remembers what it is to draw."""

    def __init__(self) -> None:
        self.drawn: list[dict[str, Any]] = []

    def add_datasample(self, name: str, image: np.ndarray, **options: Any) -> None:
        self.drawn.append(dict(name=name, image=image, **options))


class Classifier:
    """MMPreTrain's."""

    def __init__(self) -> None:
        self.drawn: list[dict[str, Any]] = []

    def visualize_cls(self, image: np.ndarray, **options: Any) -> None:
        self.drawn.append(dict(image=image, **options))


@pytest.mark.parametrize('visualizer', [Drawer, Classifier])
def test_each_image_is_drawn_under_its_own_name(
    visualizer: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two images have the same name, in different folders."""
    monkeypatch.chdir(tmp_path)
    paths = [tmp_path / 'images' / city / '1.png' for city in ('a', 'b')]
    for value, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), np.full((2, 3, 3), (0, 0, 100 + value), np.uint8))
    hook, said = DrawPredictionsHook('drawn', score_thr=0.7, wait_time=2.0), []
    runner = SimpleNamespace(
        visualizer=visualizer(),
        test_dataloader=SimpleNamespace(dataset=SimpleNamespace(data_prefix=dict(img_path=str(tmp_path / 'images')))),
        logger=SimpleNamespace(info=said.append),
    )
    samples = [Sample(img_path=str(paths[0]), pred_instances=[]), Sample(img_path=str(paths[1]))]
    hook.before_test(runner)
    hook.after_test_iter(runner, 0, None, samples)
    hook.after_test(runner)
    first, second = runner.visualizer.drawn
    assert [drawn['out_file'] for drawn in (first, second)] == [f'{tmp_path}/drawn/{city}/1.png' for city in 'ab']
    assert [drawn['image'][0, 0].tolist() for drawn in (first, second)] == [[100, 0, 0], [101, 0, 0]]
    assert (first['show'], first['wait_time'], first['data_sample']) == (False, 2.0, samples[0])
    assert first.get('pred_score_thr') == (0.7 if visualizer is Drawer else None) and 'pred_score_thr' not in second
    (line,) = said
    assert f'{tmp_path}/drawn' in line


@pytest.mark.parametrize(
    ('path', 'prefixes', 'name'),
    [
        ('/data/images/a/1.png', [dict(img='/data/images/', seg='/data/maps')], 'a/1.png'),
        ('/data/images/1.png', ['/data/images'], '1.png'),
        ('/data/val/1.png', [dict(img_path='/data/val', seg_map_path='/maps'), dict(img='/data/val')], '1.png'),
        ('/data/b/1.png', [dict(img_path='/data/a'), dict(img='/data/b/')], 'b/1.png'),
        ('/other/a/1.png', [dict(img='/data/images', seg=None)], '1.png'),
        ('/other/a/1.png', [{}], '1.png'),
        ('/other/a/1.png', [None], '1.png'),
    ],
)
def test_the_name_of_a_drawing(path: str, prefixes: list[Any], name: str) -> None:
    assert name_below(path, folder_of(prefixes)) == name


def test_wrappers_are_looked_through() -> None:
    first, second = SimpleNamespace(data_prefix={}), SimpleNamespace(data_prefix={})
    repeated = SimpleNamespace(dataset=second)
    assert list(innermost(SimpleNamespace(datasets=[first, repeated]))) == [first, second]


@pytest.mark.parametrize(('color_type', 'shape'), [('color', (3, 2)), ('color_ignore_orientation', (2, 3))])
def test_images_are_turned_as_the_pipeline_turns_them(color_type: str, shape: tuple[int, int], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new('RGB', (3, 2)).save(tmp_path / 'a.jpg', exif=exif)
    pipeline = SimpleNamespace(transforms=[SimpleNamespace(color_type=color_type)])
    dataset = SimpleNamespace(data_prefix=dict(img=str(tmp_path)), pipeline=pipeline)
    runner = SimpleNamespace(visualizer=Drawer(), test_dataloader=SimpleNamespace(dataset=dataset))
    hook = DrawPredictionsHook(str(tmp_path / 'drawn'))
    hook.before_test(runner)
    hook.after_test_iter(runner, 0, None, [Sample(img_path=str(tmp_path / 'a.jpg'))])
    assert runner.visualizer.drawn[0]['image'].shape[:2] == shape


def test_labels_are_where_mmsegmentation_has_them() -> None:
    rng = np.random.default_rng(0)
    for height, width, share in ((1, 1, 1.0), (3, 7, 0.5), (20, 11, 0.1), (16, 16, 0.9)):
        mask = (rng.random((height, width)) < share).astype(np.uint8)
        assert label_place(mask).tolist() == SegLocalVisualizer._get_center_loc(None, mask).tolist()


def test_dumped_predictions(tmp_path: Path) -> None:
    masks = torch.zeros(2, 4, 6, dtype=torch.bool)
    masks[0, 1:3, 2:5] = True
    samples = [
        {'img_id': 7, 'pred_instances': {'masks': masks}, 'gt_instances': 'dropped', 'ignored_instances': 'dropped'},
        {'img_path': 'a', 'pred_sem_seg': {'data': torch.full((1, 4, 6), 3)}, 'seg_logits': 'dropped'},
    ]
    metric = DumpPredictions(str(tmp_path / 'out.pkl'))
    metric.process({}, samples[:1])
    metric.process({}, samples[1:])
    metric.compute_metrics(metric.results)
    first, second = pickle.loads((tmp_path / 'out.pkl').read_bytes())
    assert set(first) == {'img_id', 'pred_instances'}
    assert [mask['size'] for mask in first['pred_instances']['masks']] == [[4, 6], [4, 6]]
    assert set(second) == {'img_path', 'pred_sem_seg'}
    assert second['pred_sem_seg']['data'].dtype == torch.int16
    assert second['pred_sem_seg']['data'].unique().tolist() == [3]
    assert area(first['pred_instances']['masks']).tolist() == [6, 0]
