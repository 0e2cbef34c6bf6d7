"""What wrong inputs get: each case is a sentence, what it does, and the words of the error or the documented result.

Wrong arguments of the backbones, weights that do not fit and wrong command lines are in the tests of these parts too.
"""

import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmrope import LayerDecayOptimWrapperConstructor, RoPESwin, RoPEViT, SimpleFeaturePyramid
from mmrope.checkpoints.loading import load_checkpoint
from mmrope.checkpoints.sources import CheckpointError
from mmrope.commands.checks import annotations, files
from mmrope.commands.checks.config import check_data, check_keys
from mmrope.commands.errors import CommandError
from mmrope.engine.finite_loss_hook import FiniteLossHook
from mmrope.layers import RelativePositionBias

VIT = dict(arch=dict(embed_dims=16, depth=2, num_heads=2), patch_size=8, window_size=3, global_attn_indexes=(1,))
SWIN = dict(arch=dict(embed_dims=8, depths=(2, 2), num_heads=(2, 2)), window_size=3, out_indices=(0, 1))


def vit(**kwargs: Any) -> RoPEViT:
    return RoPEViT(**{**VIT, **kwargs}).eval()


def swin(**kwargs: Any) -> RoPESwin:
    return RoPESwin(**{**SWIN, **kwargs}).eval()


@pytest.fixture(params=[vit, swin], ids=['vit', 'swin'])
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    return request.param()


# Images: what is no batch of images is an error, and every size is a result.

WRONG_IMAGES = {
    'whole numbers': (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), 'floating point.* torch.uint8'),
    'no batch axis': (torch.zeros(3, 16, 16), r'\(B, 3, H, W\) images, but got shape \(3, 16, 16\)'),
    'four channels': (torch.zeros(1, 4, 16, 16), r'\(B, 3, H, W\) images, but got shape \(1, 4, 16, 16\)'),
    'channels last': (torch.zeros(1, 16, 16, 3), r'\(B, 3, H, W\) images, but got shape \(1, 16, 16, 3\)'),
    'a video': (torch.zeros(1, 3, 2, 16, 16), r'\(B, 3, H, W\)'),
    'no rows': (torch.zeros(1, 3, 0, 16), r'at least one pixel, but got shape \(1, 3, 0, 16\)'),
    'no columns': (torch.zeros(1, 3, 16, 0), r'at least one pixel, but got shape \(1, 3, 16, 0\)'),
}


@pytest.mark.parametrize('case', WRONG_IMAGES)
def test_wrong_batch_is_named(model: torch.nn.Module, case: str) -> None:
    images, words = WRONG_IMAGES[case]
    with pytest.raises(ValueError, match=words):
        model(images)


@pytest.mark.parametrize('size', [(1, 1), (1, 4000), (4000, 1), (3, 5), (7, 8), (9, 1)], ids=str)
def test_images_smaller_than_a_patch_or_a_window_are_padded_ones(model: torch.nn.Module, size: tuple[int, int]) -> None:
    x, patch = torch.randn(1, 3, *size), model.patch_embed.proj.kernel_size[0]
    padded = torch.nn.functional.pad(x, (0, -size[1] % patch, 0, -size[0] % patch))
    with torch.no_grad():
        for ours, theirs in zip(model(x), model(padded), strict=True):
            assert ours.isfinite().all() and torch.equal(ours, theirs)


def test_an_empty_batch_gives_empty_maps_and_zero_gradients(model: torch.nn.Module) -> None:
    full, empty = model(torch.randn(2, 3, 20, 30)), model(torch.zeros(0, 3, 20, 30))
    assert [(0, *out.shape[1:]) for out in full] == [out.shape for out in empty]
    sum(out.sum() for out in empty).backward()
    assert all(param.grad is None or not param.grad.any() for param in model.parameters())


@pytest.mark.parametrize('value', [torch.nan, torch.inf])
def test_pixels_that_are_not_finite_spoil_their_image_alone(model: torch.nn.Module, value: float) -> None:
    x = torch.randn(2, 3, 20, 30)
    with torch.no_grad():
        clean = model(x)
        x[0, :, 4, 5] = value
        for before, after in zip(clean, model(x), strict=True):
            assert not after[0].isfinite().all()
            torch.testing.assert_close(after[1], before[1], rtol=0, atol=1e-5)


# Arguments: the error names the argument and its value.

WRONG_ARGUMENTS: dict[str, tuple[Callable[[], Any], str]] = {
    'ViT, arch a number': (lambda: vit(arch=3), 'arch must be one of tiny, .* 3'),
    'ViT, depth a list': (lambda: vit(arch=dict(embed_dims=8, depth=[2], num_heads=2)), r'depth of arch .* \[2\]'),
    'ViT, heads a text': (lambda: vit(arch=dict(embed_dims=8, depth=2, num_heads='2')), "num_heads of arch .* '2'"),
    'ViT, width a fraction': (lambda: vit(arch=dict(embed_dims=8.5, depth=2, num_heads=2)), 'embed_dims .* 8.5'),
    'ViT, no heads': (lambda: vit(arch=dict(embed_dims=8, depth=2, num_heads=0)), 'num_heads of arch .* 0'),
    'ViT, mlp_ratio 0': (lambda: vit(arch=dict(embed_dims=8, depth=2, num_heads=2, mlp_ratio=0)), 'mlp_ratio .* 0'),
    'ViT, window a fraction': (lambda: vit(window_size=3.5), 'window_size .* 3.5'),
    'ViT, window None': (lambda: vit(window_size=None), 'window_size .* None'),
    'ViT, patch a text': (lambda: vit(patch_size='16'), "patch_size .* '16'"),
    'ViT, image of no height': (lambda: vit(img_size=(0, 32)), r'img_size .* \(0, 32\)'),
    'ViT, out_indices a number': (lambda: vit(out_indices=1), 'out_indices .* 1'),
    'ViT, out_indices fractions': (lambda: vit(out_indices=(0.5,)), r'out_indices .* \(0.5,\)'),
    'ViT, same output twice': (lambda: vit(out_indices=(1, -1)), 'out_indices must not repeat'),
    'ViT, output of no block': (lambda: vit(out_indices=(2,)), r'out_indices .* -2 and 1, .* \(2,\)'),
    'ViT, global block of none': (lambda: vit(global_attn_indexes=(-3,)), r'global_attn_indexes .* \(-3,\)'),
    'ViT, theta not a number': (lambda: vit(rope_theta=float('nan')), 'theta .* nan'),
    'ViT, theta below 0': (lambda: vit(rope='axial', rope_theta=-10), 'theta .* -10'),
    'ViT, theta infinite': (lambda: vit(rope_theta=float('inf')), 'theta .* inf'),
    'ViT, odd head_dim': (lambda: vit(arch=dict(embed_dims=14, depth=2, num_heads=2)), 'head_dim .* 7'),
    'ViT, rope True': (lambda: vit(rope=True), "rope must be 'mixed', 'axial' or None, but got True"),
    'ViT, drop path a text': (lambda: vit(drop_path_rate='0.1'), "drop_path_rate .* '0.1'"),
    'ViT, drop path not a number': (lambda: vit(drop_path_rate=float('nan')), 'drop_path_rate .* nan'),
    'ViT, half a frozen stage': (lambda: vit(frozen_stages=0.5), 'frozen_stages .* 0.5'),
    'Swin, arch None': (lambda: swin(arch=None), 'arch must be one of tiny, .* None'),
    'Swin, depths a number': (
        lambda: swin(arch=dict(embed_dims=8, depths=2, num_heads=2)),
        'depths of arch .* 2',
    ),
    'Swin, heads of too few stages': (
        lambda: swin(arch=dict(embed_dims=8, depths=[2, 2], num_heads=[2])),
        r'num_heads = \[2\]',
    ),
    'Swin, window below 0': (lambda: swin(window_size=-7), 'window_size .* -7'),
    'Swin, two windows': (lambda: swin(window_size='7'), "window_size .* '7'"),
    'Swin, frozen stages': (lambda: swin(frozen_stages=3), 'frozen_stages .* -1 and 2, but got 3'),
    'Swin, channels below 0': (lambda: swin(in_channels=-3), 'in_channels .* -3'),
    'pyramid, scale 3': (lambda: SimpleFeaturePyramid(16, 8, scales=(3, 1)), r'scales .* \(3, 1\)'),
    'pyramid, scale 0': (lambda: SimpleFeaturePyramid(16, 8, scales=(1, 0)), r'scales .* \(1, 0\)'),
    'pyramid, no scales': (lambda: SimpleFeaturePyramid(16, 8, scales=()), r'scales .* \(\)'),
    'pyramid, no channels': (lambda: SimpleFeaturePyramid(16, 0), 'out_channels .* 0'),
    'pyramid, too few outputs': (lambda: SimpleFeaturePyramid(16, 8, num_outs=3), 'num_outs .* 4 .* 3'),
    'bias of a smaller window': (lambda: RelativePositionBias(3, 2)((4, 3), torch.float32), r'at most 3 .* \(4, 3\)'),
    'layer decay 0': (
        lambda: LayerDecayOptimWrapperConstructor(
            dict(optimizer=dict(type='AdamW', lr=1e-4)), dict(decay_rate=0.0)
        ),
        'decay_rate .* 0.0',
    ),
    'look at losses never': (lambda: FiniteLossHook(interval=0), 'interval .* 0'),
}  # fmt: skip


@pytest.mark.parametrize('case', WRONG_ARGUMENTS)
def test_a_wrong_argument_is_named(case: str) -> None:
    call, words = WRONG_ARGUMENTS[case]
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert '\n' not in str(caught.value)


# Annotations: how a good file is spoilt, and what is said of it.


def coco() -> dict[str, Any]:
    """Two images, three boxes of two categories."""
    images = [dict(id=i, file_name=f'{i}.png', width=64, height=48) for i in (1, 2)]
    boxes = [(1, 1, 7), (1, 2, 8), (2, 1, 9)]
    polygon = [[1.0, 1.0, 21.0, 1.0, 21.0, 11.0]]
    anns = [
        dict(id=j, image_id=i, category_id=c, bbox=[1, 1, 20, 10], area=100, iscrowd=0, segmentation=polygon)
        for i, c, j in boxes
    ]
    return dict(images=images, annotations=anns, categories=[dict(id=1, name='cat'), dict(id=2, name='dog')])


def config(root: Path, **dataset: Any) -> Config:
    dataset = {
        'type': 'CocoDataset', 'data_root': str(root), 'ann_file': 'a.json', 'data_prefix': dict(img='images'),
        'metainfo': dict(classes=('cat', 'dog')), 'pipeline': [dict(type='LoadAnnotations', with_mask=True)], **dataset,
    }  # fmt: skip
    return Config(
        dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset), train_cfg=dict(type='EpochBasedTrainLoop'))
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A good data set."""
    (tmp_path / 'images').mkdir()
    for name in ('1.png', '2.png'):
        cv2.imwrite(str(tmp_path / 'images' / name), np.zeros((48, 64, 3), np.uint8))
    (tmp_path / 'a.json').write_text(json.dumps(coco()))
    return tmp_path


def spoil(part: str, index: int, **changes: Any) -> Callable[[dict], None]:
    """Change an entry; a value of ``...`` removes the key."""

    def change(data: dict) -> None:
        for key, value in changes.items():
            if value is ...:
                del data[part][index][key]
            else:
                data[part][index][key] = value

    return change


BROKEN_ANNOTATIONS: dict[str, tuple[Callable[[dict], Any], str]] = {
    'no images': (lambda d: d.update(images=[]), 'has no images'),
    'no annotations': (lambda d: d.pop('annotations'), 'has no annotations'),
    'no categories': (lambda d: d.pop('categories'), 'has no categories'),
    'images a dict': (lambda d: d.update(images={'1': 'a'}), 'has no images'),
    'an image without a name': (spoil('images', 0, file_name=...), "cannot read: KeyError: 'file_name'"),
    'an image without a width': (spoil('images', 1, width=...), "cannot read: KeyError: 'width'"),
    'an image listed twice': (spoil('images', 1, id=1), 'several images with the same id: 1'),
    'a missing image': (spoil('images', 1, file_name='9.png'), r'lists images that do not exist: .*/images/9\.png'),
    'an image in a missing folder': (spoil('images', 1, file_name='b/2.png'), r'do not exist: .*/images/b/2\.png'),
    'a category without a name': (spoil('categories', 0, name=...), "cannot read: KeyError: 'name'"),
    'a category twice': (spoil('categories', 1, id=1), 'several categories with the same id: 1'),
    'a misspelt category': (spoil('categories', 1, name='dogg'), "no category dog, .*'cat', 'dogg'"),
    'categories in another order': (lambda d: d['categories'].reverse(), 'in another order .* dog, cat and'),
    'an annotation without a box': (spoil('annotations', 0, bbox=...), r'no bbox \(id 7;'),
    'an annotation without an area': (spoil('annotations', 1, area=...), r'no area \(id 8;'),
    'an annotation of no image': (spoil('annotations', 2, image_id=5), r"image_id .*\(id 9; .*'image_id': 5"),
    'an annotation of no category': (spoil('annotations', 2, category_id=0), r"\(id 9; .*'category_id': 0"),
    'a box of three numbers': (spoil('annotations', 0, bbox=[1, 2, 3]), r'got 3\) \(id 7; .*\[1, 2, 3\]'),
    'a box with NaN': (spoil('annotations', 0, bbox=[1, 2, 3, float('nan')]), r'bbox .*\(id 7; .*\[1, 2, 3, nan\]'),
    'no mask': (spoil('annotations', 0, segmentation=...), r'segmentation .*\(id 7;'),
    'an empty mask': (spoil('annotations', 0, segmentation=[]), r'segmentation .*\(id 7; .*\[\]'),
    'a polygon of two points': (spoil('annotations', 0, segmentation=[[1, 2, 3, 4]]), r'polygons .*\(id 7; .*3, 4\]'),
    'a polygon with half a point': (spoil('annotations', 0, segmentation=[[1] * 7]), r'polygons .*\(id 7;'),
    'a polygon not in a list': (spoil('annotations', 0, segmentation=[1, 2, 3, 4, 5, 6]), r'\(id 7;'),
    'a mask without its size': (spoil('annotations', 0, segmentation=dict(counts=[1])), r'no size \(id 7;'),
    'boxes all without an area': (
        lambda d: [ann.update(bbox=[0, 0, 0, 0]) for ann in d['annotations']],
        'no box of the classes that lies in an image and has an area',
    ),
}  # fmt: skip


@pytest.mark.parametrize('case', BROKEN_ANNOTATIONS)
def test_broken_annotations_are_named(case: str, root: Path) -> None:
    spoil_it, words = BROKEN_ANNOTATIONS[case]
    data = coco()
    spoil_it(data)
    (root / 'a.json').write_text(json.dumps(data))
    refused(config(root), rf'train_dataloader reads {re.escape(str(root))}/a\.json, which .*{words}')


def refused(cfg: Config, words: str) -> None:
    with pytest.raises(CommandError, match=words) as caught:
        check_data(cfg, ('train',))
    assert '\n' not in str(caught.value)


BROKEN_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    'cut short': (lambda p: p.write_bytes(p.read_bytes()[:-40]), 'cannot read: JSONDecodeError'),
    'of no bytes': (lambda p: p.write_bytes(b''), 'a.json, which is empty'),
    'an image': (lambda p: p.write_bytes(b'\x89PNG\r\n\x1a\n' + bytes(range(256))), 'cannot read: UnicodeDecodeError'),
    'a list': (lambda p: p.write_text('[1, 2]'), "a.json, which CocoDataset cannot read: TypeError: 'list'"),
    'missing': (lambda p: p.unlink(), 'a.json, which does not exist: put the data set there'),
    'a link to nothing': (lambda p: (p.unlink(), p.symlink_to('none')), 'a.json, which does not exist'),
}  # fmt: skip


@pytest.mark.parametrize('case', BROKEN_FILES)
def test_a_broken_annotation_file_is_named(case: str, root: Path) -> None:
    spoil_it, words = BROKEN_FILES[case]
    spoil_it(root / 'a.json')
    refused(config(root), words)


def test_a_large_annotation_file_is_not_parsed_but_its_end_and_file_names_are_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotations, 'LARGEST_PARSED', 0)
    monkeypatch.setattr(files, 'MOST_SIZED', 0)
    data = coco()
    data['images'][0]['file_name'] = 'ö"1.png'
    (root / 'images' / '1.png').rename(root / 'images' / 'ö"1.png')
    (root / 'a.json').write_text(json.dumps(data))
    check_data(config(root), ('train',))
    (root / 'images' / '2.png').unlink()
    refused(config(root), r'do not exist: .*/images/2\.png')
    (root / 'a.json').write_text(json.dumps(data)[:-1])
    refused(config(root), 'cut short: it does not end in }')


@pytest.mark.slow
def test_an_annotation_file_as_large_as_cocos_takes_seconds(tmp_path: Path) -> None:
    """118,287 images and 860,001 annotations of 500 bytes, as COCO's train2017 has; and the largest that is parsed."""

    def write(images: int, anns: int) -> None:
        polygon = [[round(10 + i * 1.37, 2) for i in range(60)]]
        ann = coco()['annotations'][0]
        with open(tmp_path / 'a.json', 'w') as file:
            file.write('{"images": [')
            listed = (dict(id=i, file_name=f'{i:012}.jpg', width=640, height=480) for i in range(images))
            file.write(', '.join(json.dumps(image) for image in listed) + '], "categories": ')
            file.write(json.dumps(coco()['categories']) + ', "annotations": [')
            template = json.dumps({**ann, 'id': -1, 'image_id': -2, 'segmentation': polygon})
            for i in range(anns):
                text = template.replace('-1', str(i)).replace('-2', str(i % images))
                file.write((', ' if i else '') + text)
            file.write(']}')

    (tmp_path / 'images').mkdir()
    for i in range(118_287):
        (tmp_path / 'images' / f'{i:012}.jpg').symlink_to('none')
    for images, anns in ((118_287, 860_001), (20_001, 55_000)):
        write(images, anns)
        size = (tmp_path / 'a.json').stat().st_size / 2**20
        assert size > 350 or size * 2**20 < annotations.LARGEST_PARSED
        start = time.perf_counter()
        check_data(config(tmp_path), ('train',))
        seconds = time.perf_counter() - start
        print(f'{size:.0f} MiB, {images} images, {anns} annotations: {seconds:.1f} s')
        assert seconds < 30


@pytest.mark.parametrize('bbox', [[1, 1, 0, 10], [1, 1, 0.5, 10], [64, 0, 9, 9], [-20, -20, 20, 10]], ids=str)
def test_a_box_without_an_area_or_outside_of_its_image_is_a_warning(root: Path, bbox: list[float]) -> None:
    data = coco()
    data['annotations'][0]['bbox'] = bbox
    (root / 'a.json').write_text(json.dumps(data))
    with pytest.warns(UserWarning, match='1 of 3 boxes have no area or lie outside'):
        check_data(config(root), ('train',))
    from mmdet.datasets import CocoDataset  # what the host does with it

    classes = dict(classes=('cat', 'dog'))
    taken = CocoDataset('a.json', data_root=str(root), data_prefix=dict(img='images'), metainfo=classes, pipeline=[])
    assert [len(taken.get_data_info(i)['instances']) for i in range(2)] == [1, 1]


def test_masks_that_are_not_read_may_be_missing(root: Path) -> None:
    data = coco()
    for ann in data['annotations']:
        del ann['segmentation']
    (root / 'a.json').write_text(json.dumps(data))
    check_data(config(root, pipeline=[dict(type='LoadAnnotations', with_bbox=True)]), ('train',))


def test_a_class_that_is_a_text_is_named(root: Path) -> None:
    refused(
        config(root, metainfo=dict(classes=('cat'))), r"classes 'cat', which must be a sequence of names.* \('cat',\)"
    )


# Folders.


def test_an_image_of_no_bytes_and_an_empty_folder_are_named(root: Path) -> None:
    (root / 'images' / '2.png').write_bytes(b'')
    refused(config(root), r'lists images that are empty files: .*/images/2\.png')
    for path in (root / 'images').iterdir():
        path.unlink()
    refused(config(root), 'images, which is empty')


def test_a_file_in_place_of_a_folder_is_named(root: Path) -> None:
    (root / 'file').write_text('x')
    refused(config(root, data_prefix=dict(img='file')), 'images that do not exist: .*/file/1.png, .*/file/2.png')
    refused(config(root, ann_file='a.json/b.json'), 'b.json, which does not exist')


@pytest.mark.parametrize('closed', ['.', 'images', 'a.json'])
def test_a_data_root_without_rights_is_named(closed: str) -> None:
    """Run as another user if the tests run as root, to whom nothing is closed."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.chmod(root, 0o755)
        (root / 'images').mkdir()
        (root / 'a.json').write_text(json.dumps(coco()))
        for name in ('1.png', '2.png'):
            (root / 'images' / name).write_bytes(b'x')
        os.chmod(root / closed, 0)
        me = os.geteuid()
        if me == 0:
            os.seteuid(65534)
        try:
            refused(config(root), 'which cannot be read: permission denied')
        finally:
            os.seteuid(me)
            os.chmod(root / closed, 0o755)


@pytest.mark.parametrize(
    'spoil_it, words',
    [
        (lambda maps, images: (maps / 'b' / '2.png').unlink(), r'class maps that do not exist: .*/maps/b/2\.png'),
        (lambda maps, images: (images / '3.jpg').write_bytes(b'x'), r'class maps that do not exist: .*/3\.png'),
        (lambda maps, images: [p.rename(p.with_suffix('.jpeg')) for p in images.rglob('*.jpg')], 'no images .*jpg'),
    ],
    ids=['a map is missing', 'an image too many', 'another suffix'],
)
def test_a_segmentation_set_with_gaps_is_named(tmp_path: Path, spoil_it: Callable, words: str) -> None:
    for folder, suffix in (('images', 'jpg'), ('maps', 'png')):
        (tmp_path / folder / 'b').mkdir(parents=True)
        (tmp_path / folder / f'1.{suffix}').write_bytes(b'x')
        (tmp_path / folder / 'b' / f'2.{suffix}').write_bytes(b'x')
    prefix = dict(img_path='images', seg_map_path='maps')
    dataset = dict(type='ADE20KDataset', data_root=str(tmp_path), data_prefix=prefix, pipeline=[])
    cfg = Config(dict(default_scope='mmseg', train_dataloader=dict(dataset=dataset), train_cfg=dict(type='Loop')))
    check_data(cfg, ('train',))
    spoil_it(tmp_path / 'maps', tmp_path / 'images')
    refused(cfg, f'train_dataloader reads {re.escape(str(tmp_path))}/images, which lists .*{words}')


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize('kept', [0.3, 0.9, None], ids=['a third', 'nine tenths', 'a text'])
def test_the_host_names_an_image_that_is_cut_short_or_none(tmp_path: Path, suffix: str, kept: float | None) -> None:
    from mmcv.transforms import LoadImageFromFile

    path = tmp_path / f'1{suffix}'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = path.read_bytes()
    path.write_bytes(b'no image' if kept is None else data[: int(kept * len(data))])
    with pytest.raises(AssertionError, match=f'failed to load image: {path}'):
        LoadImageFromFile()(dict(img_path=str(path)))


# Configs: the rest is in tests/commands/checks and tests/tools.


@pytest.mark.parametrize(
    'key, meant',
    [
        ('param_schedulr', 'param_scheduler'),
        ('custom_hook', 'custom_hooks'),
        ('default_hook', 'default_hooks'),
        ('env_cfgs', 'env_cfg'),
        ('optim_wraper', 'optim_wrapper'),
    ],
)
def test_a_misspelt_part_of_a_config_is_a_warning(key: str, meant: str, recwarn: pytest.WarningsRecorder) -> None:
    with pytest.warns(UserWarning, match=f'{key}, .*did you mean {meant}'):
        check_keys(Config({'model': dict(type='A'), 'data_root': 'data', key: []}))
    recwarn.clear()
    check_keys(Config({'model': dict(type='A'), key: [], meant: []}))  # a variable of a part that is there
    assert not recwarn


def test_no_config_of_ours_is_taken_for_misspelt(recwarn: pytest.WarningsRecorder) -> None:
    """One of each recipe: the others have the same parts."""
    paths = list((Path(__file__).parents[1] / 'configs').glob('*_rope_mixed_*_[bst]*.py'))
    assert len({path.name.partition('_rope')[0] for path in paths}) == 9
    for path in paths:
        check_keys(Config.fromfile(str(path)))
    assert not [warning for warning in recwarn if 'did you mean' in str(warning.message)]


# Checkpoints: the rest is in tests/checkpoints and tests/weights.


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'old format'])
@pytest.mark.parametrize('kept', [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_checkpoint_cut_short_is_named_wherever_it_is_cut(tmp_path: Path, zipped: bool, kept: float) -> None:
    path = tmp_path / 'model.pth'
    torch.save({'state_dict': vit().state_dict()}, path, _use_new_zipfile_serialization=zipped)
    assert 'state_dict' in load_checkpoint(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(CheckpointError, match=f'{path} is not a checkpoint, or is damaged: no weights could be read'):
        load_checkpoint(path)


@pytest.mark.parametrize(
    'content', [b'\x89PNG\r\n', b'<html>not found</html>', b'version https://git-lfs', b'PK\x03\x04']
)
@pytest.mark.parametrize('name', ['model.pth', 'model.safetensors'])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f'{path} is not a checkpoint, or is damaged'):
        load_checkpoint(path)
