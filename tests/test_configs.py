"""Every config parses, builds, and runs a loss and a prediction on images whose sides nothing divides."""

import copy
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmcv.ops import RoIAlign
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement, PixelData

from mmrope.datasets.digits import make_digits
from mmrope.weights.known import FAMILY_WEIGHTS, KNOWN

ROOT = Path(__file__).parents[1] / 'configs'


def load(name: str) -> Config:
    return Config.fromfile(ROOT / f'{name}.py')


def recipe(name: str) -> str:
    """The recipe of a config; the digits' configs are recipes of their own."""
    found = re.search(r'_base_/recipes/(\w+)\.py', (ROOT / f'{name}.py').read_text())
    return found.group(1) if found else name


def cost(name: str) -> tuple[bool, bool, int, int, str]:
    """A key that puts small models with RoPE-Mixed alone first."""
    size = re.split('_vit_|_swin_', name)[1][0]
    return 'ape' in name, 'rope_mixed_' not in name or '_rpb' in name, 'tsbl'.index(size), len(name), name


CONFIGS = sorted((path.stem for path in ROOT.glob('*.py')), key=cost)
BODIES = {recipe(name): name for name in reversed(CONFIGS)}  # the cheapest config of each recipe
# Bodies that differ from another one by numbers alone run with the slow tests. So do box heads on the ViT, since they
# run on the Swin, and DINO on all but the smallest backbone.
OTHERS = r'_vit_l_|_(eva02|pe_spatial)_|(cascade|faster)_rcnn_.*_vit_|dino_.*_b_'
RUN = {name for name in BODIES.values() if not re.search(OTHERS, name)}
SCHEDULES = r'(_25e|_36e)?_[18]x4_accum\d+|_3x'  # what tells a config from one that trains the same model otherwise
TRAINED = [name for name in CONFIGS if not name.startswith('imagenet')]  # those are for tests alone
FAMILIES = [name for name in CONFIGS if re.search('lingbot|dinov3|eva02|pe_spatial', name)]
SIXTEEN = ('mask_rcnn_vit', 'faster_rcnn_vit', 'cascade_rcnn_vit')  # recipes for 16 processes
DIGITS = [name for name in CONFIGS if name.endswith('_tiny_digits')]
SEGMENTERS = [name for name in DIGITS if name.startswith('upernet')]


def each(names: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize('name', names)


def starting_with(*prefixes: str) -> list[str]:
    return [name for name in CONFIGS if name.startswith(prefixes) and name not in DIGITS]


def detection_batch(cfg: Config) -> dict:
    from mmdet.testing import demo_mm_inputs

    if cfg.model.type == 'DINO':  # 900 queries want an image of as many tokens
        return demo_mm_inputs(2, [(3, 203, 301), (3, 190, 275)], num_items=[3, 1], num_classes=80)
    if cfg.model.type == 'MaskFormer':  # the second image without things
        panoptic = cfg.model.panoptic_head.num_stuff_classes > 0
        return demo_mm_inputs(
            2, [(3, 101, 133), (3, 90, 75)], num_items=[3, 0], num_classes=80, with_mask=True, with_semantic=panoptic
        )
    head = cfg.model.roi_head.bbox_head
    num_classes = (head[0] if isinstance(head, list) else head).num_classes
    masks = cfg.model.roi_head.get('mask_head') is not None
    return demo_mm_inputs(2, [(3, 101, 133), (3, 90, 75)], num_items=[3, 1], num_classes=num_classes, with_mask=masks)


def segmentation_batch(cfg: Config) -> dict:
    from mmseg.structures import SegDataSample

    height, width = cfg.model.data_preprocessor.size
    samples = []
    for _ in range(2):
        labels = torch.randint(cfg.model.decode_head.num_classes, (1, height, width))
        meta = dict(img_shape=(height, width), ori_shape=(height + 7, width - 5))
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=meta))
    return dict(inputs=[torch.randint(256, (3, height, width)).byte() for _ in samples], data_samples=samples)


def classification_batch(cfg: Config) -> dict:
    from mmpretrain.structures import DataSample

    samples = [DataSample().set_gt_label(label) for label in (3, cfg.model.head.num_classes - 1)]
    return dict(inputs=[torch.randint(256, (3, 101, 133)).byte() for _ in samples], data_samples=samples)


BATCHES = {'mmdet': detection_batch, 'mmseg': segmentation_batch, 'mmpretrain': classification_batch}
LEAST_LOGGED = {'mmdet': 5, 'mmseg': 3, 'mmpretrain': 1}


@pytest.fixture(autouse=True)
def _cheap_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """No downloads, and weights from a cheaper distribution: to draw 300 million normal ones takes 10 seconds."""
    monkeypatch.setattr('mmrope.weights.PretrainedBackbone.__call__', lambda self, module: None)
    for module in ('backbone', 'vit'):
        monkeypatch.setattr(
            f'mmrope.models.{module}.trunc_normal_', lambda x, std: torch.nn.init.uniform_(x, -std, std)
        )


def build(cfg: Config) -> torch.nn.Module:
    from mmengine.registry import MODELS

    return revert_sync_batchnorm(MODELS.build(cfg.model))


def check_prediction(cfg: Config, prediction: BaseDataElement) -> None:
    if cfg.default_scope == 'mmpretrain':
        assert prediction.pred_score.shape == (cfg.model.head.num_classes,)
        assert prediction.pred_score.sum() == pytest.approx(1)
        return
    shape = tuple(prediction.ori_shape)
    if cfg.default_scope == 'mmseg':
        assert prediction.pred_sem_seg.shape == shape
        assert prediction.seg_logits.data.shape[0] == cfg.model.decode_head.num_classes
    elif cfg.model.type == 'DINO':
        assert prediction.pred_instances.bboxes.shape == (300, 4)
    elif cfg.model.type == 'MaskFormer' and cfg.model.test_cfg.panoptic_on:
        assert prediction.pred_panoptic_seg.sem_seg.shape == (1, *shape)
    elif cfg.model.type in ('MaskRCNN', 'MaskFormer'):
        assert prediction.pred_instances.masks.shape[1:] == shape
    else:
        assert prediction.pred_instances.bboxes.shape[1:] == (4,) and 'masks' not in prediction.pred_instances


def check_contiguous(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """MMCV's RoIAlign takes any map for one that lies channel by channel, and pools from the wrong places."""
    assert all(tensor.is_contiguous() for tensor in inputs)


@each([name for name in CONFIGS if re.search(SCHEDULES, name)])
def test_another_schedule_leaves_the_model_unchanged(name: str) -> None:
    assert load(name).model == load(re.sub(SCHEDULES, '', name)).model


MODELS = [name for name in CONFIGS if not re.search(SCHEDULES, name)]


@each([name if name in RUN else pytest.param(name, marks=pytest.mark.slow) for name in MODELS])
def test_config_builds_and_runs(name: str) -> None:
    cfg = load(name)
    if cfg.default_scope == 'mmseg':
        cfg.model.data_preprocessor.size = (101, 133)
    if recipe(name) in SIXTEEN or (name in FAMILIES and name.startswith('mask_rcnn')):
        cfg.model.data_preprocessor.pad_size_divisor = 32  # or the images would be as large as in a training
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build(cfg)
        if cfg.model.type == 'DINO':
            model.init_weights()  # before it some of its embeddings are whatever the memory held
        batch = BATCHES[cfg.default_scope](cfg)
        for module in model.modules():
            if isinstance(module, RoIAlign):
                module.register_forward_pre_hook(check_contiguous)
        data = model.data_preprocessor(batch, True)
        loss, logged = model.parse_losses(model.forward(**data, mode='loss'))
        assert loss.isfinite() and len(logged) >= LEAST_LOGGED[cfg.default_scope]
        model.eval()
        with torch.no_grad():
            predictions = model.forward(**model.data_preprocessor(batch, False), mode='predict')
    assert len(predictions) == 2
    for prediction in predictions:
        check_prediction(cfg, prediction)


@each(
    [
        name if name in BODIES.values() or '_rpb_' in name else pytest.param(name, marks=pytest.mark.slow)
        for name in TRAINED
    ]
)
def test_optimiser_builds_and_covers_the_model(name: str) -> None:
    """Every learning parameter lies in one group, and what the recipe says takes no weight decay takes none."""
    from mmengine.optim import build_optim_wrapper

    cfg = load(name)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        model = build(cfg)
        wrapper_cfg = {**cfg.optim_wrapper, 'type': 'OptimWrapper'}  # AMP wants a GPU
        groups = build_optim_wrapper(model, wrapper_cfg).optimizer.param_groups
    options = {param: group for group in groups for param in group['params']}
    for key, param in model.named_parameters():
        if not param.requires_grad:
            continue
        tables = key.endswith(('rope.freqs', 'pos_embed', 'cls_token', 'reg_token', 'relative_position_bias_table'))
        if 'constructor' in cfg.optim_wrapper:
            decays = param.ndim > 1 and not tables and not key.endswith(('query_feat.weight', 'query_embed.weight'))
            decays = decays and not key.endswith('level_embed.weight') and 'level_encoding' not in key
        else:
            decays = not tables and ('norm' not in key or name.startswith('dino'))
        if 'level_encoding' not in key:
            assert (options[param]['weight_decay'] > 0) == decays, key
        if name.startswith(('dino', 'mask2former')) and name not in FAMILIES:
            slow = ('backbone.', 'neck.0.') if '_vit_' in name else 'backbone.'
            assert options[param]['lr'] == pytest.approx(1e-5 if key.startswith(slow) else 1e-4), key


@each([name for name in CONFIGS if name not in FAMILIES and 'dinov2' not in name])
def test_config_has_the_backbone_of_its_name_and_its_weights(name: str) -> None:
    backbone = load(name).model.backbone
    if 'digits' in name:
        assert backbone.rope == 'mixed' and backbone.init_cfg.type == 'Xavier'
        return
    _, variant, kind, size = re.fullmatch(
        r'(imagenet|mask_rcnn|faster_rcnn|cascade_rcnn|dino|upernet|mask2former|eomt)_(\w+)_(vit|swin)_(\w).*', name
    ).groups()
    rope = 'axial' if 'axial' in variant else 'mixed' if 'mixed' in variant else None
    arch = dict(t='tiny', s='small', b='base', l='large')[size]
    kind = dict(vit='mmrope.RoPEViT', swin='mmrope.RoPESwin')[kind]
    ape, rpb = 'ape' in variant, 'rpb' in variant
    named = (backbone.type, backbone.arch, backbone.rope, backbone.get('ape', False), backbone.get('rpb', False))
    assert named == (kind, arch, rope, ape, rpb)
    both = rpb and rope is not None  # has no weights: those of RoPE, the tables anew
    model = (kind, arch, rope, ape, rpb and not both)
    (weights,) = [w for w in KNOWN if (f'mmrope.{w.backbone}', w.arch, w.rope, w.ape, w.rpb) == model]
    allowed = dict(allow_missing=['relative_position_bias_table']) if both else {}
    assert backbone.init_cfg == dict(type='Pretrained', checkpoint=weights.checkpoint, **allowed)


PIXELS = {  # mean and standard deviation of red, as part of white, by the words in timm's names
    'lingbot|dinov3': (0.485, 0.229),
    'eva02': (0.48145466, 0.26862954),
    'pe_spatial': (0.5, 0.5),
}


@each(FAMILIES)
def test_config_of_a_family_has_its_weights_its_pixels_and_what_its_name_says(name: str) -> None:
    cfg = load(name)
    head, family, size, frozen = re.fullmatch(
        r'(mask_rcnn|dino|upernet|linear|eomt)_(lingbot|dinov3|eva02|pe_spatial)_vit_([sbl])(_frozen)?_'
        '(?:coco(?:_panoptic|_instance)?|ade20k)',
        name,
    ).groups()
    backbone, width = cfg.model.backbone, dict(s=384, b=768, l=1024)[size]
    (weights,) = [w for w in FAMILY_WEIGHTS if w.checkpoint == backbone.init_cfg.checkpoint]
    assert (f'mmrope.{weights.backbone}', weights.arch) == (backbone.type, backbone.arch) and not weights.gated
    assert family.replace('dinov3', 'dinov3.') in weights.name and backbone.arch.endswith(
        dict(s='small', b='base', l='large')[size]
    )
    with torch.device('meta'), DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build(cfg)
    assert model.backbone.embed_dims == width
    learning = [key for key, param in model.backbone.named_parameters() if param.requires_grad]
    assert bool(learning) != (frozen is not None or head == 'linear')
    mean, std = next(value for words, value in PIXELS.items() if re.search(words, name))
    pixels = cfg.model.data_preprocessor
    assert (pixels.mean[0], pixels.std[0]) == pytest.approx((255 * mean, 255 * std))
    stride = model.backbone.patch_embed.patch_size[0]
    assert stride == (14 if family == 'eva02' else 16)
    if head == 'mask_rcnn':
        assert list(cfg.model.rpn_head.anchor_generator.strides) == [stride / 4 * 2**i for i in range(5)]
        assert cfg.model.roi_head.bbox_roi_extractor.featmap_strides == [stride / 4 * 2**i for i in range(4)]
        assert model.backbone.num_prefix == (5 if family == 'lingbot' else 0)
    if head in ('mask_rcnn', 'dino'):
        assert model.backbone.window_size == (
            0 if frozen else 32 if (head, family) == ('mask_rcnn', 'pe_spatial') else 16
        )
    if head == 'eomt':
        assert model.backbone.num_prefix == 5 and model.backbone.open_blocks == dict(s=3, b=3, l=4)[size]
    elif head != 'linear':
        assert cfg.optim_wrapper.paramwise_cfg == dict(decay_rate=0.85 if head == 'upernet' else 0.7)


def value(cfg: Config, key: str) -> Any:
    """Return the value of a config at ``'a.b.0.c'``; None if there is none."""
    for part in key.split('.'):
        cfg = cfg[int(part)] if isinstance(cfg, list) else cfg.get(part) if cfg is not None else None
    return cfg


def unscoped(part: Any) -> Any:
    """A part of a config without the scope that MMEngine writes into what it takes from another package."""
    if isinstance(part, dict):
        return {key: unscoped(value) for key, value in part.items() if key != '_scope_'}
    return [unscoped(value) for value in part] if isinstance(part, list) else part


SCHEDULE = ('train_cfg', 'param_scheduler', 'auto_scale_lr.base_batch_size', 'optim_wrapper.clip_grad')
DATA = ('train_dataloader', 'val_dataloader', 'val_evaluator')
HEADS = ('neck', 'rpn_head', 'roi_head', 'train_cfg', 'test_cfg', 'data_preprocessor')
DINO = (
    'num_queries encoder decoder positional_encoding bbox_head dn_cfg train_cfg test_cfg with_box_refine as_two_stage'
)
ORIGINALS = {  # the hosts' own configs, and what is the same in ours
    'mask_rcnn_rope_mixed_swin_t_coco': (
        'mmdet/swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
        [*SCHEDULE, *DATA, *(f'model.{part}' for part in HEADS), 'model.backbone.drop_path_rate'],
    ),
    'mask_rcnn_rope_mixed_swin_t_3x_coco': (
        'mmdet/swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py',
        [*SCHEDULE, *DATA, *(f'model.{part}' for part in HEADS)],
    ),
    'dino_rope_mixed_vit_b_coco': (
        'mmdet/dino/dino-4scale_r50_8xb2-12e_coco.py',
        [*SCHEDULE, *DATA, *(f'model.{part}' for part in DINO.split()), 'log_processor'],
    ),
    'upernet_rope_mixed_swin_t_ade20k': (
        'mmseg/swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
        ['param_scheduler', 'train_cfg.max_iters', 'train_pipeline', 'model.backbone.drop_path_rate'],
    ),
    'mask2former_rope_mixed_swin_s_ade20k': (
        'mmseg/mask2former/mask2former_swin-s_8xb2-160k_ade20k-512x512.py',
        [*SCHEDULE, 'train_pipeline', 'model.decode_head.loss_cls', 'model.backbone.drop_path_rate'],
    ),
}


@each(list(ORIGINALS))
def test_a_recipe_is_that_of_the_config_it_follows(name: str) -> None:
    path, same = ORIGINALS[name]
    package, _, path = path.partition('/')
    ours, theirs = load(name), Config.fromfile(files(package) / '.mim' / 'configs' / path)
    for key in same:
        assert unscoped(value(ours, key)) == unscoped(value(theirs, key)), key
    optimizer = ours.optim_wrapper.optimizer
    assert optimizer == {key: theirs.optim_wrapper.optimizer[key] for key in optimizer}


BOXES = ('neck', 'rpn_head', 'roi_head', 'train_cfg', 'test_cfg', 'data_preprocessor')
BOX_ONLY = {  # the file of the same model, and what another recipe changes in it
    'faster_rcnn_rope_mixed_swin_t_coco': ('mmdet', '_base_/models/faster-rcnn_r50_fpn.py'),
    'cascade_rcnn_rope_mixed_swin_t_coco': ('mmdet', '_base_/models/cascade-rcnn_r50_fpn.py'),
}


@each(list(BOX_ONLY))
def test_a_detector_of_boxes_on_swin_is_that_of_the_host_on_another_backbone(name: str) -> None:
    package, path = BOX_ONLY[name]
    ours, theirs = load(name), Config.fromfile(files(package) / '.mim' / 'configs' / path)
    theirs.model.neck.in_channels = [96, 192, 384, 768]
    assert all(unscoped(ours.model[part]) == unscoped(theirs.model[part]) for part in BOXES)
    swin = load('mask_rcnn_rope_mixed_swin_t_coco')
    assert ours.model.backbone == swin.model.backbone
    assert all(value(ours, key) == value(swin, key) for key in (*SCHEDULE, 'optim_wrapper'))


@each(['faster_rcnn_rope_mixed_vit_b_coco', 'cascade_rcnn_rope_mixed_vit_b_coco'])
def test_a_detector_of_boxes_on_a_vit_differs_from_vitdet_in_its_heads_alone(name: str) -> None:
    ours, theirs = load(name), load('mask_rcnn_rope_mixed_vit_b_coco')
    same = ('model.backbone', 'model.neck', 'model.rpn_head', 'model.data_preprocessor.pad_size_divisor')
    assert all(
        unscoped(value(ours, key)) == unscoped(value(theirs, key)) for key in (*same, *SCHEDULE, 'optim_wrapper')
    )
    heads = ours.model.roi_head.bbox_head
    norms = [value(head, 'norm_cfg') for head in (heads if isinstance(heads, list) else [heads])]
    assert norms == [dict(type='mmrope.LayerNorm2d', eps=1e-6)] * (3 if name.startswith('cascade') else 1)
    kinds = ('LoadImageFromFile', 'RandomFlip', 'RandomResize', 'RandomCrop', 'PackDetInputs')
    steps, others = ({step.type: step for step in cfg.train_dataloader.dataset.pipeline} for cfg in (ours, theirs))
    assert list(steps) == list(others) and all(steps[kind] == others[kind] for kind in kinds)
    assert not any(step.get('with_mask') or step.get('by_mask') for step in steps.values())
    assert ours.val_evaluator.metric == ours.test_evaluator.metric == 'bbox'
    assert not ours.test_dataloader.dataset.pipeline[2].get('with_mask')


FOUR_B, FOUR_L = (2, 5, 8, 11), (5, 11, 17, 23)
ADAMW = dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1)
PINNED = {  # of recipes that no installed config has: detectron2's, detrex's, and choices that docs and configs state
    'mask_rcnn_rope_mixed_vit_b_coco': {
        'model.backbone.window_size': 14,
        'model.backbone.global_attn_indexes': FOUR_B,
        'model.backbone.drop_path_rate': 0.1,
        'model.neck.scales': (4, 2, 1, 0.5),
        'optim_wrapper.type': 'AmpOptimWrapper',
        'optim_wrapper.optimizer': ADAMW,
        'optim_wrapper.paramwise_cfg.decay_rate': 0.7,
        'param_scheduler.0.end': 250,
        'param_scheduler.1.milestones': [163889, 177546],
        'train_dataloader.sampler.type': 'InfiniteSampler',
        'train_dataloader.batch_sampler': None,
    },
    'mask_rcnn_rope_mixed_vit_l_coco': {
        'model.backbone.global_attn_indexes': FOUR_L,
        'model.backbone.drop_path_rate': 0.4,
        'optim_wrapper.paramwise_cfg.decay_rate': 0.8,
    },
    'dino_rope_mixed_vit_b_coco': {
        'model.backbone.window_size': 14,
        'model.backbone.global_attn_indexes': FOUR_B,
        'model.backbone.drop_path_rate': 0.1,
        'model.neck.0.scales': (2, 1, 0.5),
        'model.neck.1.norm_cfg': dict(type='GN', num_groups=32),
    },
    'dino_rope_mixed_vit_l_coco': {
        'model.backbone.global_attn_indexes': FOUR_L,
        'model.backbone.drop_path_rate': 0.4,
        'param_scheduler.0.end': 250,
    },
    'dino_rope_mixed_swin_b_coco': {'model.backbone.out_indices': (1, 2, 3), 'param_scheduler.0.end': 1000},
    'upernet_rope_mixed_vit_b_ade20k': {
        'model.backbone.with_cls_token': True,
        'model.backbone.out_indices': FOUR_B,
        'model.backbone.drop_path_rate': 0.1,
    },
    'upernet_rope_mixed_vit_l_ade20k': {
        'model.backbone.with_cls_token': True,
        'model.backbone.out_indices': FOUR_L,
        'model.backbone.drop_path_rate': 0.4,
    },
}


@each(list(PINNED))
def test_a_recipe_without_an_installed_original_is_as_published(name: str) -> None:
    cfg = load(name)
    assert {key: value(cfg, key) for key in PINNED[name]} == PINNED[name]


PLAN = r'vit_b_(?:(\d+)e_)?(?:(\d+)x4_accum(\d+)_)?coco'


@each(starting_with('mask_rcnn_rope_mixed_vit_b_'))
def test_a_vitdet_schedule_has_the_steps_and_epochs_it_says(name: str) -> None:
    """As many iterations a step as gradients accumulate, and the rate falls at the same shares of all steps."""
    cfg, original = load(name), load('mask_rcnn_rope_mixed_vit_b_coco')
    epochs, processes, counts = (int(number or 1) for number in re.search(PLAN, name).groups())
    share, processes = (epochs / 100 if epochs > 1 else 1), processes if counts > 1 else 16
    assert cfg.optim_wrapper.get('accumulative_counts', 1) == counts
    warmup, steps = cfg.param_scheduler
    assert warmup.end == 250 * counts and steps.end == cfg.train_cfg.max_iters
    scaled = [milestone * counts * share for milestone in original.param_scheduler[1].milestones]
    assert steps.milestones == pytest.approx(scaled, abs=counts)
    images = cfg.train_cfg.max_iters * processes * cfg.train_dataloader.batch_size
    assert images / 118_000 == pytest.approx(100 * share, rel=1e-4)
    assert cfg.default_hooks.checkpoint.interval == cfg.train_cfg.val_interval == 5000 * counts


@each(['upernet_rope_mixed_vit_b_ade20k', 'mask2former_rope_mixed_swin_s_ade20k'])
def test_augmented_tests_predict_the_original_image(name: str, tmp_path: Path) -> None:
    """Flipped and not, at two of the sizes: the mean of the probabilities, in the image's own size."""
    cfg = load(name)
    sizes = cfg.tta_pipeline[1].transforms[0]
    assert len(sizes) == 6
    del sizes[1:-1]
    for resize in sizes:  # an eighth here
        resize.scale = tuple(side // 8 for side in resize.scale)
    image, labels = np.random.default_rng(0).integers(1, 151, (2, 101, 133), np.uint8)
    cv2.imwrite(str(tmp_path / 'image.png'), image[..., None].repeat(3, axis=2))
    cv2.imwrite(str(tmp_path / 'labels.png'), labels)
    with DefaultScope.overwrite_default_scope('mmseg'):
        from mmseg.registry import MODELS, TRANSFORMS

        pipeline = Compose([TRANSFORMS.build(step) for step in cfg.tta_pipeline])
        paths = dict(img_path=str(tmp_path / 'image.png'), seg_map_path=str(tmp_path / 'labels.png'))
        data = pipeline(dict(**paths, label_map=None, reduce_zero_label=True, seg_fields=[]))
        model = build(cfg).eval()
        merged = MODELS.build(dict(cfg.tta_model, module=model)).test_step(pseudo_collate([data]))
        singles = []
        for view, sample in zip(data['inputs'], data['data_samples']):
            (out,) = model.test_step(dict(inputs=[view], data_samples=[sample]))
            singles.append(out.seg_logits.data.softmax(0))
    assert len(singles) == 4
    assert torch.equal(merged[0].gt_sem_seg.data[0], torch.from_numpy(labels).long() - 1)
    assert merged[0].pred_sem_seg.shape == (101, 133)
    agree = merged[0].pred_sem_seg.data[0] == torch.stack(singles).mean(0).argmax(0)
    assert agree.float().mean() > 0.999  # ties may fall either way


@each(starting_with('imagenet'))
def test_imagenet_model_is_the_published_one(name: str) -> None:
    cfg = load(name)
    backbone = {key: value for key, value in cfg.model.backbone.items() if key not in ('type', 'init_cfg')}
    defaults = dict(ape=False) if '_vit_' in name else dict(rpb=False)
    assert [weights.backbone for weights in KNOWN if weights.arguments == defaults | backbone] == [
        cfg.model.backbone.type.removeprefix('mmrope.')
    ]
    assert cfg.test_evaluator == dict(type='Accuracy', topk=(1, 5))


@each(TRAINED)
def test_every_training_watches_its_numbers_and_keeps_few_checkpoints(name: str) -> None:
    cfg = load(name)
    annealed = ['mmrope.MaskAnnealingHook'] if name.startswith('eomt') else []
    assert [hook.type for hook in cfg.custom_hooks] == ['mmrope.FiniteLossHook', 'mmrope.LogFreqsHook', *annealed]
    assert 1 <= cfg.default_hooks.checkpoint.max_keep_ckpts <= 3


@each([name for name in TRAINED if 'digits' not in name])
def test_eight_processes_make_the_batch_of_the_learning_rate(name: str) -> None:
    """Of ViTDet's recipe, sixteen as its authors have it; eight or one with the configs that accumulate."""
    cfg = load(name)
    processes = 16 if recipe(name) in SIXTEEN else 1 if '_1x4_' in name else 8
    step = processes * cfg.train_dataloader.batch_size * cfg.optim_wrapper.get('accumulative_counts', 1)
    assert step == cfg.auto_scale_lr.base_batch_size


@pytest.mark.parametrize('shape', [(480, 640), (1500, 500)])
@pytest.mark.parametrize('options, padded', [({}, (1024, 1024)), ({'pad_size_divisor': 32}, None)])
def test_vitdet_pads_images_to_a_square_after_normalising_them(
    shape: tuple[int, int], options: dict, padded: tuple[int, int] | None, tmp_path: Path
) -> None:
    """In training and in tests, unless the option leaves it out."""
    from mmdet.registry import MODELS, TRANSFORMS

    cfg = load('mask_rcnn_rope_mixed_vit_b_coco')
    cfg.model.data_preprocessor.update(options)
    cv2.imwrite(str(tmp_path / 'image.png'), np.full((*shape, 3), 200, np.uint8))
    height, width = shape
    box = dict(bbox=[0, 0, width, height], bbox_label=0, ignore_flag=0)
    box['mask'] = [[0, 0, width, 0, width, height, 0, height]]
    info = dict(img_path=str(tmp_path / 'image.png'), img_id=0, height=height, width=width, instances=[box])
    with DefaultScope.overwrite_default_scope('mmdet'):
        preprocess = MODELS.build(cfg.model.data_preprocessor)
        for pipeline, training in ((cfg.train_pipeline, True), (cfg.test_pipeline, False)):
            data = Compose([TRANSFORMS.build(step) for step in pipeline])(copy.deepcopy(info))
            batch = preprocess(pseudo_collate([data]), training)
            (sample,), pixels = batch['data_samples'], batch['inputs'][0]
            h, w = sample.img_shape
            expected = padded or (-(-h // 32) * 32, -(-w // 32) * 32)
            assert sample.batch_input_shape == tuple(pixels.shape[1:]) == expected
            if training:  # tests load masks after resizing, in the size of the file
                assert sample.gt_instances.masks.masks.shape[1:] == expected
            assert (pixels[:, h:] == 0).all() and (pixels[:, :, w:] == 0).all() and (pixels[:, :h, :w] != 0).all()


@each([name for name in starting_with('upernet') if '_vit_' in name and name not in FAMILIES])
def test_an_absolute_embedding_of_upernet_is_learned_on_the_grid_of_the_crop(name: str) -> None:
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmseg'):
        backbone = build(load(name)).backbone
    shape = (1, 32 * 32, backbone.embed_dims) if '_ape_' in name else None
    assert getattr(backbone.pos_embed, 'shape', None) == shape


@each(DIGITS)
def test_model_built_from_a_digits_config_gives_every_parameter_a_gradient(name: str) -> None:
    cfg = load(name)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build(cfg)
        batch = BATCHES[cfg.default_scope](cfg)
        data = model.data_preprocessor(batch, True)
        model.parse_losses(model.forward(**data, mode='loss'))[0].backward()
    without = [name for name, param in model.named_parameters() if param.grad is None]
    assert not without


@each(SEGMENTERS)
def test_digits_are_segmented_at_half_size_and_scored_at_whole(name: str, tmp_path: Path) -> None:
    from mmseg.registry import DATASETS

    make_digits(tmp_path / 'digits', images=2, val_images=1, progress=False)
    cfg = load(name)
    with DefaultScope.overwrite_default_scope('mmseg'):
        train, val = (
            DATASETS.build({**cfg[part].dataset, 'data_root': str(tmp_path / 'digits')})[0]
            for part in ('train_dataloader', 'val_dataloader')
        )
    assert val['inputs'].shape == (3, 64, 64)
    assert val['data_samples'].gt_sem_seg.data.shape == (1, 128, 128)
    assert train['inputs'].shape[1:] == train['data_samples'].gt_sem_seg.data.shape[1:]
    assert 54 <= train['inputs'].shape[1] <= 64


def test_labels_of_the_digits_segmenters_lie_where_the_image_does() -> None:
    """OpenCV's nearest pixel, the usual choice, moves them by half a pixel on average."""
    pipeline = load(SEGMENTERS[0]).train_dataloader.dataset.pipeline
    mask = np.zeros((128, 128), np.uint8)
    mask[50:70, 40:90] = 1
    shifts = []
    with DefaultScope.overwrite_default_scope('mmseg'):
        resize = Compose([step for step in pipeline if step.type == 'RandomResize'])
        for _ in range(30):
            image = np.repeat(mask[..., None] * 255, 3, axis=2)
            results = resize(dict(img=image, gt_seg_map=mask, seg_fields=['gt_seg_map'], img_shape=(128, 128)))
            shifts.append(centre(results['gt_seg_map']) - centre(results['img'][..., 0]))
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.2


def centre(weights: np.ndarray) -> np.ndarray:
    """Row and column of the centre of mass."""
    return np.array([np.average(place, weights=weights) for place in np.indices(weights.shape)])


@each(SEGMENTERS)
def test_last_layer_of_the_digits_segmenters_starts_large(name: str) -> None:
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = build(load(name))
        model.init_weights()
    assert model.decode_head.conv_seg.weight.std().item() == pytest.approx(0.1, rel=0.15)
