"""tools/demo.py: what it writes is what the model predicts, and what is no image is named and counted."""

import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, DefaultScope
from PIL import Image
from pycocotools.mask import decode

import mmrope
from mmrope.commands.images import read_image
from mmrope.commands.prediction import Predictor, _same_colours
from tests.helpers.tiny import isolated, load_tool

RESIZE = "dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64), keep_ratio=True)"
CLASSIFICATION = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier', data_preprocessor=dict(num_classes=3, mean=[127.] * 3, std=[60.] * 3, to_rgb=True),
    backbone=dict(
        type='mmrope.RoPEViT', arch=dict(embed_dims=16, depth=1, num_heads=1), patch_size=8, with_cls_token=True,
        final_norm=True, out_type='cls_token'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=16))
test_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root='{data}', data_prefix='images', with_label=False, pipeline=[
        dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]))
test_evaluator = []
test_cfg = dict(type='TestLoop')
"""


@pytest.fixture(scope='module')
def tools() -> SimpleNamespace:
    return SimpleNamespace(**{name: load_tool(name).main for name in ('test', 'demo')})


@pytest.fixture(scope='module')
def models(
    write_config: Callable[..., str], tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, str]]:
    """Configs of all three kinds with random weights."""
    folder = tmp_path_factory.mktemp('models')
    found = {}
    for kind, scope in (('detection', 'mmdet'), ('segmentation', 'mmseg'), ('classification', 'mmpretrain')):
        if kind == 'classification':
            config = folder / f'{kind}.py'
            config.write_text(CLASSIFICATION.replace('{data}', str(tiny_data)))
        else:
            config = Path(write_config(folder, kind))
            text = config.read_text()
            config.write_text(text.replace("dict(type='LoadImageFromFile'), dict(type='L", f"{RESIZE}, dict(type='L"))
        with DefaultScope.overwrite_default_scope(scope):
            model = MODELS.build(Config.fromfile(config).model)
        torch.manual_seed(0)
        for name, param in model.named_parameters():
            if 'conv_seg' in name or 'head.fc' in name or 'retina_cls' in name:
                torch.nn.init.normal_(param)
        classes = {'detection': ('box',), 'segmentation': ('ground', 'box', 'sky'), 'classification': ('a', 'b', 'c')}
        palette = [[0, 0, 0], [255, 0, 0], [0, 0, 255]]
        meta = dict(dataset_meta=dict(classes=classes[kind], palette=palette[: len(classes[kind])]))
        torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / f'{kind}.pth')
        found[kind] = str(config), str(folder / f'{kind}.pth')
    return found


def run(tools: SimpleNamespace, *arguments: object) -> int | str | None:
    """The exit code of the demo."""
    with isolated():
        try:
            tools.demo([str(argument) for argument in arguments])
        except SystemExit as stop:
            return stop.code
    return 0


def predictions_of_test(tools: SimpleNamespace, model: tuple[str, str], tmp_path: Path, *options: str) -> list[dict]:
    """Predictions of tools/test.py for the images of the data set, in their order."""
    with isolated():
        tools.test([*model, '--work-dir', str(tmp_path / 'test'), '--out', str(tmp_path / 'out.pkl'), *options])
    return pickle.loads((tmp_path / 'out.pkl').read_bytes())


@pytest.mark.parametrize('kind', ['detection', 'segmentation', 'classification'])
def test_it_writes_the_predictions_of_the_test_tool(
    tools: SimpleNamespace, models: dict[str, tuple[str, str]], tiny_data: Path, tmp_path: Path, kind: str
) -> None:
    """At another size than the config's."""
    images = sorted((tiny_data / 'images').iterdir())
    out = tmp_path / 'out'
    options = ['--size', '48', '--score-thr', '0']
    assert run(tools, tiny_data / 'images', *models[kind], *options, '--out-dir', out) == 0
    written = json.loads((out / 'predictions.json').read_text())
    assert list(written['images']) == [str(path) for path in images]
    options = ['--cfg-options', 'test_dataloader.dataset.pipeline.1.scale=(48,48)']
    for path, expected in zip(images, predictions_of_test(tools, models[kind], tmp_path, *options), strict=True):
        record = written['images'][str(path)]
        assert np.asarray(Image.open(out / record['drawn'])).ndim == 3
        CHECKS[kind](record, expected, out, written['classes'])


def check_detection(record: dict[str, Any], expected: dict[str, Any], out: Path, classes: list[str]) -> None:
    assert classes == ['box'] and len(record['scores']) > 0
    assert record['class_names'] == ['box'] * len(record['labels'])
    for key in ('labels', 'scores', 'bboxes'):
        np.testing.assert_allclose(record[key], expected['pred_instances'][key].numpy(), rtol=1e-4, atol=1e-3)


def check_segmentation(record: dict[str, Any], expected: dict[str, Any], out: Path, classes: list[str]) -> None:
    class_map = expected['pred_sem_seg']['data'][0].numpy()
    np.testing.assert_array_equal(np.asarray(Image.open(out / record['map'])), class_map)
    counts = {name: int((class_map == label).sum()) for label, name in enumerate(classes)}
    assert record['pixels'] == {name: count for name, count in counts.items() if count}


def check_classification(record: dict[str, Any], expected: dict[str, Any], out: Path, classes: list[str]) -> None:
    np.testing.assert_allclose(record['pred_scores'], expected['pred_score'].numpy(), rtol=1e-4)
    best = int(expected['pred_score'].argmax())
    assert (record['pred_label'], record['pred_class']) == (best, classes[best])


CHECKS = dict(detection=check_detection, segmentation=check_segmentation, classification=check_classification)


def test_files_folders_globs_and_other_files(
    tools: SimpleNamespace,
    models: dict[str, tuple[str, str]],
    tiny_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, broken, empty = tmp_path / 'more', tmp_path / 'broken.png', tmp_path / 'empty'
    for path in (folder / 'deep', empty):
        path.mkdir(parents=True)
    for name in ('notes.txt', 'moving.GIF', '._0.jpg', '.DS_Store'):  # hidden files are no part of a folder
        (folder / name).write_bytes(b'GIF89a')
    broken.write_bytes(b'\x89PNG, but no more')
    Image.open(tiny_data / 'images/0.png').save(folder / '0.jpg')
    Image.open(tiny_data / 'images/1.png').convert('L').save(folder / 'deep/1.png')
    inputs = [tiny_data / 'images/0.png', folder, folder / '**/*.png', broken, tmp_path / 'none.png', empty]
    inputs += [tiny_data / 'images/0.png']  # twice
    code = run(tools, *inputs, *models['classification'], '--out-dir', tmp_path / 'out')
    assert re.match(r'demo\.py: 4\b.*\b3\b', code)  # Python prints it and leaves with 1
    err = capsys.readouterr().err
    for named in (
        f'{broken} .*image',
        f'{tmp_path}/none.png ',
        f'{empty} .*images',
        f'moving.GIF, notes.txt.* {folder}',
    ):
        assert re.search(f'demo.py: skipped: .*{named}', err)
    images = json.loads((tmp_path / 'out/predictions.json').read_text())['images']
    assert list(images) == [str(path) for path in (inputs[0], folder / '0.jpg', folder / 'deep/1.png')]
    assert [record['drawn'] for record in images.values()] == ['drawn/0.png', 'drawn/0_2.png', 'drawn/1.png']


def test_masks_are_written_as_coco_has_them(tools: SimpleNamespace, tiny_data: Path, tmp_path: Path) -> None:
    """The quickstart's Mask R-CNN, with random weights."""
    from tests.helpers.tiny import ROOT

    config = ROOT / 'configs/mask_rcnn_rope_mixed_vit_tiny_digits.py'
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(Config.fromfile(config).model)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')
    image = tiny_data / 'images/0.png'
    for out in ('out', 'again'):  # the colours are the same each time
        code = run(tools, image, config, tmp_path / 'model.pth', '--out-dir', tmp_path / out, '--score-thr', '0')
        assert code == 0
    assert (tmp_path / 'out/drawn/0.png').read_bytes() == (tmp_path / 'again/drawn/0.png').read_bytes()
    record = json.loads((tmp_path / 'out/predictions.json').read_text())['images'][str(image)]
    assert len(record['masks']) == len(record['scores']) > 0
    assert set(record['class_names']) <= set('0123456789')  # the checkpoint names none: the config does
    assert all(decode(mask).shape == (64, 64) for mask in record['masks'])
    assert (np.asarray(Image.open(tmp_path / 'out' / record['drawn'])) != np.asarray(Image.open(image))).any()


@pytest.mark.parametrize('kind', ['detection', 'segmentation', 'classification'])
def test_an_odd_image_is_named_and_the_others_are_kept(
    tools: SimpleNamespace,
    models: dict[str, tuple[str, str]],
    tiny_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    """Resized to 64 pixels in proportion, a strip of 3000 x 2 has a height of 0."""
    folder = tmp_path / 'images'
    folder.mkdir()
    for name in ('a.png', 'z.png'):
        (folder / name).write_bytes((tiny_data / 'images/0.png').read_bytes())
    Image.fromarray(np.full((2, 3000, 3), 90, np.uint8)).save(folder / 'strip.png')
    code = run(tools, folder, *models[kind], '--out-dir', tmp_path / 'out')
    images = json.loads((tmp_path / 'out/predictions.json').read_text())['images']
    if kind == 'classification':  # which does not keep the proportions
        assert code == 0 and len(images) == 3
        return
    assert re.match(r'demo\.py: 1\b.*\b2\b', code)
    assert re.search(f'demo.py: skipped: .*{folder}/strip.png.*3000 x 2', capsys.readouterr().err)
    assert list(images) == [str(folder / 'a.png'), str(folder / 'z.png')]


def test_nothing_is_left_where_nothing_was_predicted(
    tools: SimpleNamespace, models: dict[str, tuple[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'a.png').write_bytes(b'no image')
    arguments = [tmp_path / 'a.png', *models['detection'], '--out-dir', tmp_path / 'out']
    assert run(tools, *arguments) != 0
    assert not (tmp_path / 'out/predictions.json').exists()
    assert run(tools, *arguments, '--score-thr', '5') == 2
    assert re.search("--score-thr.*'5'", capsys.readouterr().err)


def test_the_score_threshold_holds_for_the_json_too(
    tools: SimpleNamespace, models: dict[str, tuple[str, str]], tiny_data: Path, tmp_path: Path
) -> None:
    image, kept = tiny_data / 'images/0.png', {}
    scores = [0.0]
    for threshold in (0.0, 'median'):
        threshold = float(np.median(scores)) if threshold else 0.0
        out = tmp_path / str(threshold)
        assert run(tools, image, *models['detection'], '--score-thr', threshold, '--out-dir', out) == 0
        written = json.loads((out / 'predictions.json').read_text())
        kept[threshold], scores = written['images'][str(image)], written['images'][str(image)]['scores']
        assert written['score_thr'] == threshold
    every, some = kept.values()
    above = [score for score in every['scores'] if score >= threshold]
    assert some['scores'] == above and 0 < len(above) < len(every['scores'])
    assert len(some['bboxes']) == len(some['labels']) == len(some['class_names']) == len(above)


@pytest.mark.parametrize('peak, said', [(4095, True), (65535, False)])
def test_a_16_bit_file_whose_values_need_few_bits_is_said_to_be_dark(
    tools: SimpleNamespace,
    models: dict[str, tuple[str, str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    peak: int,
    said: bool,
) -> None:
    pixels = np.linspace(0, peak, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(pixels).save(tmp_path / 'cells.png')
    assert run(tools, tmp_path / 'cells.png', *models['segmentation'], '--out-dir', tmp_path / 'out') == 0
    found = re.search(rf'demo\.py: .*{tmp_path}/cells\.png .*?uint16\b(.*)', capsys.readouterr().err)
    assert bool(found) == said
    assert found is None or re.search(r'\b4095\b.*\b15\b.*\b255\b', found[1])


def test_a_file_of_results_is_replaced_on_request_only(
    tools: SimpleNamespace,
    models: dict[str, tuple[str, str]],
    tiny_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / 'predictions.json').write_text('mine')
    arguments = [tiny_data / 'images/0.png', *models['classification'], '--out-dir', tmp_path]
    assert run(tools, *arguments) == 1
    assert re.search(f'{tmp_path}/predictions.json .*--overwrite', capsys.readouterr().err)
    assert (tmp_path / 'predictions.json').read_text() == 'mine'
    assert run(tools, *arguments, '--overwrite') == 0
    assert json.loads((tmp_path / 'predictions.json').read_text())['classes'] == ['a', 'b', 'c']


@pytest.mark.parametrize(
    'kind, scope', [('detection', 'mmdet'), ('segmentation', 'mmseg'), ('classification', 'mmpretrain')]
)
def test_types_may_be_classes(models: dict[str, tuple[str, str]], tiny_data: Path, kind: str, scope: str) -> None:
    """Configs in pure Python have classes, and need no default_scope."""
    config, checkpoint = models[kind]
    image = read_image(tiny_data / 'images/0.png')
    with isolated():
        predictor = Predictor(Config.fromfile(config), checkpoint, 0.0)
        expected = predictor(image)
        expected_picture = predictor.draw(image, expected)
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope(scope):
        for step in cfg.test_dataloader.dataset.pipeline:
            step.type = TRANSFORMS.build(step).__class__
        cfg.test_dataloader.dataset.type = DATASETS.get(f'{scope}.{cfg.test_dataloader.dataset.type}')
        cfg.model.type = MODELS.get(f'{scope}.{cfg.model.type}')
    cfg.default_scope = None
    with isolated():
        predictor = Predictor(cfg, checkpoint, 0.0)
        found = predictor(image)
        picture = predictor.draw(image, found)
    assert found.record == expected.record
    np.testing.assert_array_equal(picture, expected_picture)


def test_the_shades_of_masks_are_the_same_each_time() -> None:
    """MMDetection draws them from NumPy's global generator, which is left as it was."""

    with _same_colours():
        first = np.random.rand()
    np.random.rand()  # whatever a process has drawn before
    before = np.random.get_state()[1].copy()
    with _same_colours():
        assert np.random.rand() == first
    np.testing.assert_array_equal(np.random.get_state()[1], before)


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ('was_here',)


@pytest.mark.parametrize('kind', ['detection', 'segmentation', 'classification'])
@pytest.mark.parametrize(
    'checkpoint, words',
    [
        ('malicious.pth', r'malicious\.pth\b.*\bmkdir\b'),
        ('part.pth', r'part\.pth\b.*\b1\b.*\.bias\b'),
        ('none.pth', r'CHECKPOINT\b.*\bnone\.pth'),
    ],
)
def test_a_checkpoint_must_be_weights_and_all_of_them(
    tools: SimpleNamespace,
    models: dict[str, tuple[str, str]],
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    checkpoint: str,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}, extra=Malicious()), 'malicious.pth')
    part = torch.load(models[kind][1])
    del part['state_dict'][next(name for name in reversed(part['state_dict']) if name.endswith('.bias'))]
    torch.save(part, 'part.pth')
    assert run(tools, tiny_data / 'images/0.png', models[kind][0], checkpoint) == 1
    assert re.search(words, capsys.readouterr().err.splitlines()[-1])
    assert not Path('was_here').exists()


@pytest.mark.parametrize(
    'arguments, words, code',
    [
        (
            ['--size', '48x'],
            "--size.*HxW.*'48x'",
            2,
        ),
        (
            ['--size', 'short:48', '--cfg-options', 'model.data_preprocessor.pad_size_divisor=128'],
            '--size.*pad_size_divisor=128',
            1,
        ),
        (['--cfg-options', 'default_scope=mmocr'], 'default_scope .*mmdet.*mmseg.*mmocr', 1),
    ],
)
def test_a_mistake_ends_in_one_sentence(
    tools: SimpleNamespace,
    models: dict[str, tuple[str, str]],
    tiny_data: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
    code: int,
) -> None:
    assert run(tools, tiny_data / 'images/0.png', *models['detection'], *arguments) == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.match(f'demo.py: error: .*{words}', last)


@pytest.mark.parametrize('kind', ['detection', 'segmentation', 'classification'])
@pytest.mark.parametrize('batch_size', [1, 4])
def test_the_predictor_takes_images_of_any_kind_and_size_and_keeps_the_rest(
    models: dict[str, tuple[str, str]], tiny_data: Path, tmp_path: Path, kind: str, batch_size: int
) -> None:
    path = tiny_data / 'images' / '0.png'
    array = read_image(path)
    opened = Image.open(path)
    (tmp_path / 'text.png').write_text('no image')
    other = np.random.default_rng(0).integers(0, 255, (40, 90), dtype=np.uint8)
    images = [str(path), tmp_path / 'text.png', path, array, opened, array.astype(float), other]
    with isolated():
        predictor = mmrope.Predictor(*models[kind], score_thr=0.0, size='48' if kind != 'classification' else None)
        alone = predictor(path)
        with pytest.warns(UserWarning, match='image 1 is not predicted: .*text.png cannot be read as an image'):
            predictions = predictor(images, batch_size=batch_size)
        with pytest.raises(ValueError, match=r'a uint8 array \(H, W, 3\), got float64 \(64, 64, 3\)'):
            predictor(array.astype(float))
    failed = [index for index, prediction in enumerate(predictions) if prediction.error]
    assert failed == [1, 5] and len(predictions) == 7 and len(predictions[1].boxes) == 0
    for index in (0, 2, 3, 4):
        assert predictions[index].names == alone.names
        for name in ('boxes', 'scores', 'labels', 'class_map'):
            ours, theirs = (getattr(prediction, name) for prediction in (predictions[index], alone))
            assert (ours is None and theirs is None) or np.allclose(ours, theirs, atol=1e-4)
    if kind == 'detection':
        number = len(alone.scores)
        assert number and alone.boxes.shape == (number, 4) and set(alone.names) == {'box'} and alone.masks is None
        assert alone.boxes.max() > 48  # in pixels of the file, not of the size it is predicted at
    elif kind == 'segmentation':
        assert alone.class_map.shape == (64, 64) and predictions[6].class_map.shape == (40, 90)
    else:
        assert alone.names == [alone.record['pred_class']] and alone.scores.shape == alone.labels.shape == (1,)


def test_the_predictor_gives_masks(tmp_path: Path) -> None:
    """In the size of the image, as many as boxes, and the same as the run lengths of the record."""
    cfg = Config.fromfile(Path(mmrope.config_path('mask_rcnn_rope_mixed_swin_tiny_digits.py')))
    with isolated(), DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
        torch.save(dict(state_dict=model.state_dict()), tmp_path / 'weights.pth')
        predictor = mmrope.Predictor(cfg, str(tmp_path / 'weights.pth'), score_thr=0.0)
        prediction = predictor(np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8))
    number = len(prediction.boxes)
    assert number and prediction.masks.shape == (number, 50, 70) and prediction.masks.dtype == bool
    assert all(np.array_equal(mask, decode(run)) for mask, run in zip(prediction.masks, prediction.record['masks']))
    assert len(prediction.names) == number and set(prediction.names) <= set('0123456789')
