"""`mmrope export --part`: segmenters, classifiers and necks, and the script that runs their files without torch."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from mmengine.config import Config
from onnxruntime import InferenceSession
from PIL import Image
from torch import nn

import mmrope
from mmrope.analysis.onnx import ClassOf, _bins, _PoolingByMatrices, gap
from mmrope.commands.config import load_config, prepare_process
from mmrope.commands.export_parts import Part, QueryLogits, SegmenterScores, describe
from mmrope.commands.main import main
from mmrope.commands.models import build_model, load_whole_model, prepare_image
from mmrope.datasets.digits import make_digits
from mmrope.datasets.single_digits import make_single_digits
from tests.helpers.isolation import isolated
from tests.helpers.recipes import CONFIGS

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / 'docs' / 'export' / 'run_onnx.py'
ABSENT = ('torch', 'torchvision', 'mmrope', 'mmengine', 'mmcv', 'mmseg', 'mmdet', 'mmpretrain', 'cv2')
VIT = 'upernet_rope_mixed_vit_tiny_digits'
# UperNet with several pools, whose cells overlap where they do not divide a side, and with two outputs of a block.
POOLED = 'model = dict(decode_head=dict(pool_scales=(1, 2, 3, 6)))'
SWIN = 'model = dict(test_cfg=dict(mode="whole"))'


@pytest.fixture(scope='module')
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of two sizes, with their class maps, and single digits."""
    folder = tmp_path_factory.mktemp('digits')
    make_digits(folder / 'square', images=1, val_images=2)
    make_digits(folder / 'wide', images=1, val_images=2, size=(100, 150), seed=1)
    make_single_digits(folder / 'single', images=10, val_images=10)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Return a function that writes a child of a config and a checkpoint of random weights that all matter."""

    def write(name: str, more: str = '') -> tuple[str, str]:
        config = tmp_path / 'config.py'
        config.write_text(f'_base_ = {str(CONFIGS / f"{name}.py")!r}\n{more}\n')
        prepare_process()
        built = build_model(load_config(str(config)), 'cpu')
        for module in built.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        for param in built.parameters():
            if param.ndim > 1:
                nn.init.normal_(param, std=1.4 * param[0].numel() ** -0.5)
        torch.save({'state_dict': built.state_dict()}, tmp_path / 'weights.pth')
        return str(config), str(tmp_path / 'weights.pth')

    return write


def export(*arguments: str) -> str:
    out = str(Path(arguments[0]).with_name('out.onnx'))
    with isolated():
        main(['export', arguments[0], out, '--checkpoint', *arguments[1:]])
    return out


def run_script(*arguments: str, cwd: Path) -> str:
    """Run the script where neither torch nor mmrope nor a host can be imported."""
    absent = f'import sys, runpy; sys.modules.update(dict.fromkeys({ABSENT!r})); sys.argv = sys.argv[1:]'
    code = f'{absent}; runpy.run_path(sys.argv[0], run_name="__main__")'
    command = [sys.executable, '-I', '-c', code, str(SCRIPT), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def images(folder: Path) -> list[Path]:
    return sorted((folder / 'images' / 'validation').iterdir())


@pytest.mark.slow
def test_a_segmenter_gives_the_scores_of_its_host_at_any_size_and_the_script_its_class_maps(
    digits: Path, model: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    config, checkpoint = model(VIT, POOLED)
    out = export(config, checkpoint, '--part', 'model', '--output', 'scores', '--dynamic-size', '--dynamic-batch')
    cfg = load_config(config)
    host, _ = load_whole_model(cfg, checkpoint)
    session = InferenceSession(out, providers=['CPUExecutionProvider'])
    for path in (images(digits / 'square')[0], images(digits / 'wide')[0]):
        inputs = prepare_image(cfg, host, str(path))
        for batch in (inputs, torch.cat([inputs, inputs.flip(3), inputs / 2])[..., : inputs.shape[3] - 7]):
            assert gap(SegmenterScores(host), batch, session) < 1e-4
    predictor = mmrope.Predictor(config, checkpoint)
    shown = run_script(out, *map(str, [images(digits / 'square')[1], images(digits / 'wide')[0]]), cwd=tmp_path)
    assert len(shown.splitlines()) == 2
    for path in (images(digits / 'square')[1], images(digits / 'wide')[0]):
        ours = predictor(str(path)).class_map
        theirs = np.asarray(Image.open(tmp_path / 'maps' / path.name))
        assert ours.shape == theirs.shape and len(np.unique(ours)) > 3
        assert (ours == theirs).mean() > 0.99  # Pillow and OpenCV round pixels differently


@pytest.mark.slow
def test_a_whole_eomt_gives_the_scores_of_its_host_at_any_size(model: Callable[..., tuple[str, str]]) -> None:
    config, checkpoint = model('eomt_rope_mixed_vit_tiny_digits')
    out = export(config, checkpoint, '--part', 'model', '--output', 'scores', '--dynamic-size', '--dynamic-batch')
    host, _ = load_whole_model(load_config(config), checkpoint)
    session = InferenceSession(out, providers=['CPUExecutionProvider'])
    for shape in ((1, 3, 128, 128), (3, 3, 61, 90), (2, 3, 96, 160)):
        assert gap(SegmenterScores(host), torch.randn(shape), session) < 1e-4


INSTANCES = """
model = dict(
    backbone=dict(arch=dict(_delete_=True, embed_dims=32, depth=4, num_heads=2), init_cfg=None),
    panoptic_head=dict(embed_dims=32, num_queries=9),
)
"""


def test_a_backbone_with_open_blocks_is_not_exported_without_its_head(
    model: Callable[..., tuple[str, str]], capsys: pytest.CaptureFixture
) -> None:
    config, checkpoint = model('eomt_lingbot_vit_s_coco_instance', INSTANCES)
    for part in ('backbone', 'neck'):
        with pytest.raises(SystemExit):
            export(config, checkpoint, '--part', part, '--size', '32')
        assert re.search(rf'--part {part}: .*last 3 blocks.*--part model', capsys.readouterr().err)
    with pytest.raises(SystemExit):  # it has logits alone
        export(config, checkpoint, '--part', 'model', '--output', 'scores')
    assert re.search(r'--output scores.*logits', capsys.readouterr().err)


@pytest.mark.slow
def test_queries_of_instances_have_the_logits_of_the_head_at_any_size(model: Callable[..., tuple[str, str]]) -> None:
    config, checkpoint = model('eomt_lingbot_vit_s_coco_instance', INSTANCES)
    out = export(config, checkpoint, '--part', 'model', '--dynamic-size', '--dynamic-batch')
    host, _ = load_whole_model(load_config(config), checkpoint)
    session = InferenceSession(out, providers=['CPUExecutionProvider'])
    assert [output.name for output in session.get_outputs()] == ['class_logits', 'mask_logits']
    for shape in ((1, 3, 128, 128), (3, 3, 61, 90)):
        assert gap(QueryLogits(host), torch.randn(shape), session) < 1e-4


def test_the_classes_are_those_of_the_highest_scores_and_the_file_says_what_they_are(
    digits: Path, model: Callable[..., tuple[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config, checkpoint = model(VIT)
    out = export(config, checkpoint, '--part', 'model', '--size', '60x90')
    assert re.search(r'60 x 90 pixels \(--size\) to classes; ONNX Runtime differs by', capsys.readouterr().out)
    file = onnx.load(out)
    (output,) = file.graph.output
    shape = output.type.tensor_type.shape.dim
    assert output.name == 'classes' and [dim.dim_value for dim in shape] == [1, 60, 90]
    said = {entry.key: json.loads(entry.value) for entry in file.metadata_props}
    assert said['task'] == 'segmentation' and said['classes'][:2] == ['background', '0']
    assert said['palette'][1] == [63, 144, 218] and said['channels'] == 'RGB' and said['mean'][0] == 123.675
    assert said['resize'] == dict(within=[60, 90], interpolation='bilinear', antialias=True)
    assert said['pad'] == dict(value=0, divisor=1, size=[60, 90]) and said['crop'] is None
    path = images(digits / 'square')[0]
    shown = run_script(out, str(path), '--out', 'drawn', cwd=tmp_path)
    drawn = Image.open(tmp_path / 'drawn' / path.name)
    assert drawn.mode == 'P' and drawn.size == (128, 128)
    assert drawn.getpalette()[3:6] == [63, 144, 218]
    cfg = load_config(config)
    host, _ = load_whole_model(cfg, checkpoint)
    with torch.no_grad():  # the rule by hand: 60 of 60 x 90 pixels, the rest mean colour
        small = np.asarray(Image.open(path).convert('RGB').resize((60, 60), Image.Resampling.BILINEAR), np.float32)
        pixels = (small - np.float32(said['mean'])) / np.float32(said['std'])
        inputs = torch.zeros(1, 3, 60, 90)
        inputs[0, :, :, :60] = torch.from_numpy(pixels).permute(2, 0, 1)
        ours = SegmenterScores(host)(inputs)[0, :, :, :60].argmax(0).numpy().astype(np.uint8)
    ours = np.asarray(Image.fromarray(ours).resize((128, 128), Image.Resampling.NEAREST))
    assert (np.asarray(drawn) == ours).mean() > 0.999
    assert {name for name in re.findall(r'(\w+) [\d.]+%', shown)} == {said['classes'][i] for i in np.unique(ours)}


@pytest.mark.slow
def test_windows_need_one_size_of_any_batch(model: Callable[..., tuple[str, str]], capsys) -> None:
    config, checkpoint = model('upernet_rope_mixed_swin_tiny_digits', SWIN)
    with pytest.raises(SystemExit):
        export(config, checkpoint, '--part', 'model', '--dynamic-size')
    assert re.search(r'dynamic_size=True needs global attention', capsys.readouterr().err)
    out = export(config, checkpoint, '--part', 'model', '--output', 'scores', '--dynamic-batch', '--size', '52x75')
    host, _ = load_whole_model(load_config(config), checkpoint)
    session = InferenceSession(out, providers=['CPUExecutionProvider'])
    assert gap(SegmenterScores(host), torch.randn(3, 3, 52, 75), session) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize('output', ['classes', 'scores'])
def test_a_classifier_and_the_script_agree_with_the_host(
    output: str, digits: Path, model: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    config, checkpoint = model('classifier_rope_mixed_vit_tiny_single_digits')
    out = export(config, checkpoint, '--part', 'model', '--dynamic-size', '--dynamic-batch', '--output', output)
    found = sorted((digits / 'single' / 'validation').glob('*/*'))[:10]
    predictions = mmrope.Predictor(config, checkpoint)(found)
    lines = run_script(out, *map(str, found), cwd=tmp_path).splitlines()
    assert len(found) == len(lines) == 10
    for path, line, prediction in zip(found, lines, predictions, strict=True):
        words = line.removeprefix(f'{path}: ').split()
        assert words[0] == prediction.names[0]
        if output == 'scores':
            assert float(words[1]) == pytest.approx(prediction.scores[0], abs=2e-2)


@pytest.mark.slow
def test_a_detector_gives_the_maps_of_its_neck(model: Callable[..., tuple[str, str]]) -> None:
    config, checkpoint = model('mask_rcnn_rope_mixed_vit_tiny_digits')
    out = export(config, checkpoint, '--part', 'neck', '--dynamic-batch', '--size', '70x96')
    host, _ = load_whole_model(load_config(config), checkpoint)
    inputs = torch.randn(2, 3, 70, 96)
    with torch.no_grad():
        maps = host.extract_feat(inputs)
    session = InferenceSession(out, providers=['CPUExecutionProvider'])
    assert [output.name for output in session.get_outputs()] == [f'level{i}' for i in range(len(maps))]
    for ours, theirs in zip(maps, session.run(None, {'images': inputs.numpy()}), strict=True):
        assert np.abs(ours.numpy() - theirs).max() < 1e-4 * max(1, ours.abs().max())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--output', 'scores'], r'--output is for --part model, .*\bbackbone\b'),
        (['--part', 'model'], r'--part model needs --checkpoint'),
        (['--part', 'neck'], r'--part neck needs --checkpoint'),
        (['--part', 'model', '--checkpoint', 'FILE', '--cfg-options', 'default_scope=mmdet'], r'mmdet\b.*--part neck'),
        (['--part', 'model', '--checkpoint', 'FILE', '--cfg-options', 'model.test_cfg.mode=slide'], r"mode='slide'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / 'weights.pth').touch()
    arguments = [str(tmp_path / 'weights.pth') if word == 'FILE' else word for word in arguments]
    with pytest.raises(SystemExit), isolated():
        main(['export', str(CONFIGS / f'{VIT}.py'), str(tmp_path / 'out.onnx'), *arguments])
    assert re.search(f'mmrope export: error: .*{message}', capsys.readouterr().err)
    assert not (tmp_path / 'out.onnx').exists()


def test_a_checkpoint_with_a_gap_is_refused(model: Callable[..., tuple[str, str]], capsys) -> None:
    config, checkpoint = model(VIT)
    state = torch.load(checkpoint)
    del state['state_dict']['decode_head.conv_seg.weight']
    torch.save(state, checkpoint)
    with pytest.raises(SystemExit):
        export(config, checkpoint, '--part', 'model')
    assert re.search(r'weights are missing.*decode_head\.conv_seg\.weight', capsys.readouterr().err)


@pytest.mark.parametrize('size', [(7, 10), (6, 6), (1, 5), (13, 2)])
@pytest.mark.parametrize('cells', [2, 3, (6, 1)])
def test_pooling_by_matrices_is_adaptive_pooling(size: tuple[int, int], cells, close) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    close(_PoolingByMatrices(cells)(x), nn.AdaptiveAvgPool2d(cells)(x))


def test_cells_overlap_where_they_do_not_divide_a_side() -> None:
    assert (_bins(3, 4, torch.zeros(1)) > 0).tolist() == [
        [True, True, False, False],
        [False, True, True, False],
        [False, False, True, True],
    ]


RULES = {
    'ade20k': ('upernet_rope_mixed_vit_b_ade20k', None, dict(shorter=512, longer=2048, floor=False), None, 16),
    'imagenet': ('imagenet_rope_mixed_vit_s', None, dict(shorter=224, longer=None, floor=True), (224, 224), 1),
    'imagenet, larger': (
        'imagenet_rope_mixed_vit_s',
        (384, 384),
        dict(shorter=384, longer=None, floor=True),
        (384, 384),
        1,
    ),
    'a shape': ('single', None, dict(height=48, width=48), None, 1),
    'another shape': ('single', (30, 40), dict(height=30, width=40), None, 1),
}


@pytest.mark.parametrize(('name', 'size', 'resize', 'crop', 'divisor'), RULES.values(), ids=RULES)
def test_the_file_says_how_an_image_comes_to_its_size(name, size, resize, crop, divisor) -> None:
    name = 'classifier_rope_mixed_vit_tiny_single_digits' if name == 'single' else name
    part = Part(nn.Identity(), ['scores'], 'segmentation')
    said = {
        key: json.loads(text) for key, text in describe(part, Config.fromfile(CONFIGS / f'{name}.py'), size).items()
    }
    assert {key: value for key, value in said['resize'].items() if key in resize} == resize
    assert said['resize']['antialias'] is ('ade20k' not in name)
    assert said['crop'] == (list(crop) if crop else None) and said['pad']['divisor'] == divisor


def test_a_step_that_the_file_cannot_say_is_an_error() -> None:
    cfg = Config.fromfile(CONFIGS / f'{VIT}.py')
    cfg.test_dataloader.dataset.pipeline.insert(1, dict(type='CLAHE'))
    with pytest.raises(ValueError, match='the test pipeline has CLAHE'):
        describe(Part(nn.Identity(), ['scores'], 'segmentation'), cfg, None)
    assert 'resize' not in describe(Part(nn.Identity(), ['block0']), cfg, None)


class Fixed(nn.Module):
    """Fixed scores."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.register_buffer('scores', torch.tensor(scores))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scores.expand(len(images), -1)


@pytest.mark.parametrize(('theirs', 'expected'), [(1, 0.0), (2, 1e-5), (0, 0.75)])
def test_a_wrong_class_counts_by_how_much_lower_it_scores(theirs: int, expected: float) -> None:
    class Session:
        def run(self, names: None, inputs: dict) -> list[np.ndarray]:
            return [np.full(len(inputs['images']), theirs, np.int32)]

    model = ClassOf(Fixed([1.0, 4.0, 4.0 - 4e-5]))
    assert gap(model, torch.zeros(2, 3, 1, 1), Session()) == pytest.approx(expected, rel=0.05, abs=1e-9)
