"""tools/test.py on ImageNet: a folder of a few images, at several sizes, against timm's way to prepare them."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from timm.data import create_transform
from tiny import ROOT, load_tool

VIT, SWIN = (str(ROOT / 'configs' / f'imagenet_rope_mixed_{name}.py') for name in ('vit_s', 'swin_t'))
PIPELINE = 'test_dataloader.dataset.pipeline'
AT_384 = [f'{PIPELINE}.1.scale=426', f'{PIPELINE}.2.crop_size=384']
LOADING = ['test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False', 'test_dataloader.batch_size=2']
SHAPES = [(300, 400), (250, 230), (224, 500), (450, 310)]


def make_classifier(config: str, **backbone: int) -> torch.nn.Module:
    """The model of a config with random weights, large enough to tell images apart."""
    cfg = Config.fromfile(config)
    cfg.model.backbone.update(backbone)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model).eval()
    for name, param in model.named_parameters():
        if name.endswith(('gamma_1', 'gamma_2', 'proj.weight', 'fc.weight')):
            torch.nn.init.normal_(param, std=0.1 if 'fc' in name else 0.5)
    return model


def expected_scores(model: torch.nn.Module, images: list[Image.Image], size: int) -> np.ndarray:
    """Probabilities by timm's preparation of the images: RGB, the shorter side at ``size / 0.9``, the centre."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    prepare = create_transform(size, crop_pct=0.9, interpolation='bicubic', mean=mean, std=std)
    with torch.no_grad():
        return model(torch.stack([prepare(image) for image in images])).softmax(1).numpy()


@pytest.fixture
def imagenet(tmp_path: Path) -> SimpleNamespace:
    """A folder as MMPreTrain expects it; its labels are written by a test, once it knows them."""
    rng = np.random.default_rng(0)
    folder = tmp_path / 'imagenet'
    for name in ('val', 'meta'):
        (folder / name).mkdir(parents=True)
    images = []
    for width, height in SHAPES:  # patches of colour, and noise that every interpolation blurs in its own way
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((width, height))
        noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        images.append(Image.blend(coarse, noise, 0.5))
    for i, image in enumerate(images):
        image.save(folder / 'val' / f'{i}.png')
    return SimpleNamespace(folder=folder, images=images)


@pytest.mark.parametrize(
    'config, size, options',
    [(VIT, 224, []), (VIT, 384, AT_384), (SWIN, 384, [*AT_384, 'model.backbone.window_size=12'])],
    ids=['vit-224', 'vit-384', 'swin-384'],
)
def test_accuracy_is_that_of_images_prepared_by_timm(imagenet, tmp_path, config, size, options):
    model = make_classifier(config, **({'window_size': 12} if config == SWIN else {}))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')
    expected = expected_scores(model, imagenet.images, size)
    labels = expected.argmax(1)
    labels[-1] = expected[-1].argsort()[-3]  # wrong, but among the first five
    (imagenet.folder / 'meta' / 'val.txt').write_text('\n'.join(f'{i}.png {label}' for i, label in enumerate(labels)))
    out, work_dir = tmp_path / 'out.pkl', tmp_path / 'work'
    load_tool('test').main(
        [config, str(tmp_path / 'model.pth'), '--data-root', str(imagenet.folder), '--work-dir', str(work_dir)]
        + ['--out', str(out), '--show-dir', str(tmp_path / 'drawn'), '--cfg-options', *LOADING, *options]
    )
    (metrics,) = work_dir.glob('*/*.json')
    measured = json.loads(metrics.read_text())
    assert (measured['accuracy/top1'], measured['accuracy/top5']) == (75, 100)
    predictions = pickle.loads(out.read_bytes())
    assert not any('gt_label' in prediction for prediction in predictions)
    scores = np.stack([prediction['pred_score'].numpy() for prediction in predictions])
    np.testing.assert_allclose(scores, expected, rtol=1e-3)
    assert len(list((tmp_path / 'drawn').iterdir())) == len(SHAPES)


def test_a_missing_data_set_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({}, 'model.pth')
    with pytest.raises(SystemExit):
        load_tool('test').main([VIT, 'model.pth'])
    message = 'test_dataloader reads data/imagenet/val, which does not exist: put the data set there as README.md says'
    assert message in capsys.readouterr().err
