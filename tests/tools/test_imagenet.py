"""tools/test.py on ImageNet: a folder of a few images, at several sizes, against timm's way to prepare them."""

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from timm.data import create_transform

from tests.helpers.hub import Hub
from tests.helpers.published import as_file, vit
from tests.helpers.tiny import ROOT, load_tool

VIT, SWIN = (str(ROOT / 'configs' / f'imagenet_rope_mixed_{name}.py') for name in ('vit_s', 'swin_t'))
PIPELINE = 'test_dataloader.dataset.pipeline'
CROP_384 = f'{PIPELINE}.2.crop_size=384'
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


def expected_scores(model: torch.nn.Module, images: list[Image.Image], size: int, crop: float = 1.0) -> np.ndarray:
    """Probabilities by timm's preparation of the images: RGB, the shorter side at ``size / crop``, the centre."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    prepare = create_transform(size, crop_pct=crop, interpolation='bicubic', mean=mean, std=std)
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
    'config, size, crop, options',
    [
        (VIT, 224, 1.0, []),
        (VIT, 384, 1.0, [f'{PIPELINE}.1.scale=384', CROP_384]),
        (SWIN, 384, 224 / 256, [f'{PIPELINE}.1.scale=438', CROP_384, 'model.backbone.window_size=12']),
    ],
    ids=['vit-224', 'vit-384', 'swin-384'],
)
def test_accuracy_is_that_of_images_prepared_by_timm(
    imagenet: SimpleNamespace, tmp_path: Path, config, size: int, crop, options: list
) -> None:
    model = make_classifier(config, **({'window_size': 12} if config == SWIN else {}))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')
    expected = expected_scores(model, imagenet.images, size, crop)
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


def test_the_published_classifier_is_tested_by_its_name(imagenet: SimpleNamespace, tmp_path: Path, hub: Hub) -> None:
    """In its authors' layout, as it comes from the Hub; against timm's model with the same weights."""
    state = {key: value * 20 if 'gamma' in key else value for key, value in vit('small').items()}
    hub.files['naver-ai/rope_mixed_deit_small_patch16_LS', 'pytorch_model.bin'] = as_file(state)
    theirs = timm.create_model('vit_small_patch16_rope_mixed_224').eval()
    names = {key: value for key, value in state.items() if not key.startswith('freqs')}
    theirs.load_state_dict({**names, 'rope.freqs': state['freqs'].unflatten(2, (6, 32))})
    expected = expected_scores(theirs, imagenet.images, 224)
    assert len(set(expected.argmax(1))) > 1
    (imagenet.folder / 'meta' / 'val.txt').write_text(
        '\n'.join(f'{i}.png {label}' for i, label in enumerate(expected.argmax(1)))
    )
    out = tmp_path / 'out.pkl'
    load_tool('test').main(
        [VIT, 'hf-hub:naver-ai/rope_mixed_deit_small_patch16_LS', '--data-root', str(imagenet.folder)]
        + ['--work-dir', str(tmp_path), '--out', str(out), '--cfg-options', *LOADING]
    )
    scores = np.stack([prediction['pred_score'].numpy() for prediction in pickle.loads(out.read_bytes())])
    np.testing.assert_allclose(np.log(scores), np.log(expected), rtol=0, atol=1e-4)


MISTAKES = {
    'another variant': (lambda: vit('small', 'axial'), "RoPEViT.*rope='axial'"),
    'part of the head': (
        lambda: {key: value for key, value in vit('small').items() if key != 'head.bias'},
        r'\b1\b.*\b187\b.* head\.fc\.bias$',
    ),
    'backbone alone': (
        lambda: {f'backbone.{key}': value for key, value in make_classifier(VIT).backbone.state_dict().items()},
        r'\b2\b.*\b187\b.* head\.fc\.weight, head\.fc\.bias$',
    ),
    'another model': (
        lambda: {'head.weight': torch.zeros(3, 2)},
        r'ViT.*Swin.* head\.weight',
    ),
}


@pytest.mark.parametrize('make_state, words', MISTAKES.values(), ids=MISTAKES)
def test_a_classifier_is_not_tested_with_weights_that_do_not_fit(
    imagenet: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str], make_state: Callable, words: str
) -> None:
    (imagenet.folder / 'meta' / 'val.txt').write_text('0.png 0')
    torch.save({'state_dict': make_state()}, tmp_path / 'model.pth')
    with pytest.raises(SystemExit):
        load_tool('test').main(
            [VIT, str(tmp_path / 'model.pth'), '--data-root', str(imagenet.folder), '--work-dir', str(tmp_path)]
        )
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.match(f'test.py: error: .*{words}', error)


def test_a_missing_data_set_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({}, 'model.pth')
    with pytest.raises(SystemExit):
        load_tool('test').main([VIT, 'model.pth'])
    assert re.search(r'test_dataloader\b.*data/imagenet/val\b.*docs/train.md', capsys.readouterr().err)
