"""Every config parses, builds, and runs a loss and a prediction on images whose sides nothing divides."""

import copy
import re
from collections.abc import Container
from itertools import product
from pathlib import Path

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
from mmrope.weights.known import KNOWN

ROOT = Path(__file__).parents[1] / 'configs'
CONFIGS = sorted(path.name for path in ROOT.glob('*.py'))


def names(pattern: str, *choices: str) -> list[str]:
    """``pattern`` with each ``*`` replaced by each of the words of a choice."""
    combinations = product(*(choice.split() for choice in choices))
    return [pattern.replace('*', '{}').format(*words) for words in combinations]


VARIANTS = 'ape rope_axial rope_mixed rope_axial_ape rope_mixed_ape'
SWIN_VARIANTS = 'rope_axial rope_mixed rope_mixed_rpb'
FAMILIES = {
    'mask_rcnn_vit': names('mask_rcnn_*_vit_b_coco.py', VARIANTS) + names('mask_rcnn_rope_mixed_vit_*_coco.py', 's l'),
    'mask_rcnn_vit_8x4': [
        *names('mask_rcnn_*_vit_b_8x4_accum2_coco.py', VARIANTS),
        *names('mask_rcnn_rope_mixed_vit_*_8x4_accum2_coco.py', 's l'),
        *names('mask_rcnn_*_vit_b_25e_8x4_accum2_coco.py', 'ape rope_axial rope_mixed'),
    ],
    'mask_rcnn_swin': names('mask_rcnn_*_swin_*_coco.py', SWIN_VARIANTS, 't s b'),
    'mask_rcnn_swin_3x': names('mask_rcnn_rope_mixed_swin_*_3x_coco.py', 't s b'),
    'dino_vit': names('dino_*_vit_*_coco.py', 'ape rope_axial rope_mixed', 'b l'),
    'dino_swin': names('dino_rope_mixed_swin_*_coco.py', 't s b'),
    'upernet_vit': names('upernet_*_vit_b_ade20k.py', VARIANTS) + ['upernet_rope_mixed_vit_l_ade20k.py'],
    'upernet_swin': names('upernet_*_swin_*_ade20k.py', SWIN_VARIANTS, 't s b'),
    'mask2former_swin': names('mask2former_*_swin_*_ade20k.py', 'rope_axial rope_mixed', 't s b'),
    'imagenet_vit': names('imagenet_*_vit_*.py', VARIANTS, 's b l'),
    'imagenet_swin': names('imagenet_*_swin_*.py', 'rpb rope_axial rope_mixed', 't s b'),
    'digits': names('*_rope_mixed_*_tiny_digits.py', 'mask_rcnn upernet', 'vit swin'),
    'digit_classifiers': names('classifier_rope_mixed_*_tiny_single_digits.py', 'vit swin'),
}
TRAINED = ('mask_rcnn', 'dino', 'upernet', 'mask2former', 'digit')  # imagenet configs are for tests alone
# Families whose models are those of another, by the part of their names that tells them apart.
OTHER_SCHEDULES = {'mask_rcnn_vit_8x4': r'(_25e)?_8x4_accum2', 'mask_rcnn_swin_3x': '_3x'}
MEMBERS = [(family, name) for family, members in FAMILIES.items() for name in members]


def members(*prefixes: str, without: Container[str] = ()) -> pytest.MarkDecorator:
    chosen = [(family, name) for family, name in MEMBERS if family.startswith(prefixes) and family not in without]
    return pytest.mark.parametrize('family, name', chosen, ids=[name for _, name in chosen])


def test_all_configs_are_here():
    assert CONFIGS == sorted(name for _, name in MEMBERS)
    assert len(CONFIGS) == 7 + 10 + 9 + 3 + 6 + 3 + 6 + 9 + 6 + 15 + 9 + 4 + 2


def load(name: str) -> Config:
    return Config.fromfile(ROOT / name)


def detection_batch(cfg: Config) -> dict:
    from mmdet.testing import demo_mm_inputs

    if cfg.model.type == 'DINO':  # 900 queries want an image of as many tokens
        return demo_mm_inputs(2, [(3, 203, 301), (3, 190, 275)], num_items=[3, 1], num_classes=80)
    num_classes = cfg.model.roi_head.bbox_head.num_classes
    return demo_mm_inputs(2, [(3, 101, 133), (3, 90, 75)], num_items=[3, 1], num_classes=num_classes, with_mask=True)


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
    else:
        assert prediction.pred_instances.masks.shape[1:] == shape


def check_contiguous(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """MMCV's RoIAlign takes any map for one that lies channel by channel, and pools from the wrong places."""
    assert all(tensor.is_contiguous() for tensor in inputs)


@members(*OTHER_SCHEDULES)
def test_another_schedule_leaves_the_model_as_it_is(family, name):
    assert load(name).model == load(re.sub(OTHER_SCHEDULES[family], '', name)).model


@members('', without=OTHER_SCHEDULES)
def test_config_builds_and_runs(family, name):
    cfg = load(name)
    if cfg.default_scope == 'mmseg':
        cfg.model.data_preprocessor.size = (101, 133)
    if family == 'mask_rcnn_vit':
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


@members(*TRAINED)
def test_optimiser_builds_and_covers_the_model(family, name):
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
        tables = key.endswith(('rope.freqs', 'pos_embed', 'cls_token', 'relative_position_bias_table'))
        if 'constructor' in cfg.optim_wrapper:
            decays = param.ndim > 1 and not tables and not key.endswith(('query_feat.weight', 'query_embed.weight'))
            decays = decays and not key.endswith('level_embed.weight') and 'level_encoding' not in key
        else:
            decays = not tables and ('norm' not in key or family.startswith('dino'))
        if 'level_encoding' not in key:
            assert (options[param]['weight_decay'] > 0) == decays, key
        if family.startswith(('dino', 'mask2former')):
            slow = ('backbone.', 'neck.0.') if family == 'dino_vit' else 'backbone.'
            assert options[param]['lr'] == pytest.approx(1e-5 if key.startswith(slow) else 1e-4), key


def check_variant(cfg: Config, name: str) -> None:
    backbone = cfg.model.backbone
    assert backbone.get('rope') == ('axial' if 'axial' in name else 'mixed' if 'mixed' in name else None)
    if 'vit' in name:
        assert backbone.type == 'mmrope.RoPEViT' and backbone.get('ape', False) == ('ape' in name.split('_'))
        assert backbone.arch == {'s': 'small', 'b': 'base', 'l': 'large'}[name.split('_vit_')[1][0]]
    else:
        assert backbone.type == 'mmrope.RoPESwin' and backbone.get('rpb', False) == ('rpb' in name)
        assert backbone.arch == {'t': 'tiny', 's': 'small', 'b': 'base'}[name.split('_swin_')[1][0]]


@members('')
def test_config_names_the_weights_of_its_backbone(family, name):
    backbone = load(name).model.backbone
    if family.startswith('digit'):
        assert backbone.init_cfg.type == 'Xavier'
        return
    both = backbone.get('rpb') and backbone.rope is not None
    rpb = backbone.get('rpb', False) and not both
    model = (backbone.type, backbone.arch, backbone.rope, backbone.get('ape', False), rpb)
    (weights,) = [w for w in KNOWN if (f'mmrope.{w.backbone}', w.arch, w.rope, w.ape, w.rpb) == model]
    allowed = dict(allow_missing=['relative_position_bias_table']) if both else {}
    assert backbone.init_cfg == dict(type='Pretrained', checkpoint=weights.checkpoint, **allowed)


@members('mask_rcnn_vit')
def test_mask_rcnn_vit_recipe_is_vitdets(family, name):
    cfg = load(name)
    check_variant(cfg, name)
    large = '_vit_l_' in name
    backbone = cfg.model.backbone
    assert backbone.global_attn_indexes == ((5, 11, 17, 23) if large else (2, 5, 8, 11))
    assert (backbone.window_size, backbone.drop_path_rate) == (14, 0.4 if large else 0.1)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.betas, optimizer.weight_decay) == ('AdamW', 1e-4, (0.9, 0.999), 0.1)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.paramwise_cfg.decay_rate == (0.8 if large else 0.7)
    assert cfg.auto_scale_lr.base_batch_size == 64
    warmup, steps = cfg.param_scheduler
    counts = cfg.optim_wrapper.get('accumulative_counts', 1)
    assert (warmup.start_factor, warmup.end) == (1e-3, 250 * counts)
    share = 1 / 4 if '_25e_' in name else 1
    assert [cfg.train_cfg.max_iters, steps.end] == [pytest.approx(184375 * counts * share, abs=1)] * 2
    assert steps.milestones == pytest.approx([163889 * counts * share, 177546 * counts * share], abs=1)
    checkpoint = cfg.default_hooks.checkpoint
    assert checkpoint.interval == cfg.train_cfg.val_interval == 5000 * counts  # the same number of steps
    crop = next(step for step in cfg.train_pipeline if step.type == 'RandomCrop')
    resize = next(step for step in cfg.train_pipeline if step.type == 'RandomResize')
    assert crop.crop_size == resize.scale == (1024, 1024) and resize.ratio_range == (0.1, 2.0)
    assert cfg.train_dataloader.sampler.type == 'InfiniteSampler' and 'batch_sampler' not in cfg.train_dataloader
    assert cfg.model.rpn_head.num_convs == 2
    assert cfg.model.neck.scales == (4, 2, 1, 0.5) and cfg.model.neck.num_outs == 5
    for head in (cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head):
        assert head.norm_cfg.type == 'mmrope.LayerNorm2d'


@members('mask_rcnn_swin')
def test_mask_rcnn_swin_recipe_is_mmdets(family, name):
    cfg = load(name)
    check_variant(cfg, name)
    assert cfg.model.backbone.drop_path_rate == 0.2
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-4, 0.05)
    epochs, milestones = (36, [27, 33]) if '_3x_' in name else (12, [8, 11])
    warmup, steps = cfg.param_scheduler
    assert (cfg.train_cfg.max_epochs, steps.end, steps.milestones) == (epochs, epochs, milestones)
    assert (warmup.start_factor, warmup.end, warmup.by_epoch) == (1e-3, 1000, False)
    assert cfg.auto_scale_lr.base_batch_size == 16
    assert ('RandomChoice' in [step.type for step in cfg.train_dataloader.dataset.pipeline]) == ('_3x_' in name)
    assert cfg.optim_wrapper.type == ('AmpOptimWrapper' if '_swin_s_3x_' in name else 'OptimWrapper')


@members('dino')
def test_dino_recipe(family, name):
    cfg = load(name)
    check_variant(cfg, name)
    if 'vit' in family:
        assert cfg.model.backbone.window_size == 14
        assert len(cfg.model.backbone.global_attn_indexes) == 4
        pyramid, mapper = cfg.model.neck
        assert (pyramid.in_channels, pyramid.scales) == (1024 if '_l_' in name else 768, (2, 1, 0.5))
        assert (mapper.type, mapper.norm_cfg) == ('ChannelMapper', dict(type='GN', num_groups=32))
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-4, 1e-4)
    assert cfg.optim_wrapper.clip_grad.max_norm == 0.1
    *warmup, steps = cfg.param_scheduler
    assert (cfg.train_cfg.max_epochs, steps.milestones) == (12, [11])
    assert [step.end for step in warmup] == ([1000] if 'swin' in family else [250] if '_l_' in name else [])
    assert cfg.auto_scale_lr.base_batch_size == 16


@members('upernet', 'mask2former')
def test_ade20k_recipe_is_mmsegs(family, name):
    cfg = load(name)
    check_variant(cfg, name)
    upernet = family.startswith('upernet')
    expected = (0.4 if '_l_' in name else 0.1) if family == 'upernet_vit' else 0.3
    assert cfg.model.backbone.drop_path_rate == expected
    if family == 'upernet_vit':
        assert cfg.model.backbone.with_cls_token
        assert cfg.model.backbone.out_indices == ((5, 11, 17, 23) if '_l_' in name else (2, 5, 8, 11))
    optimizer = cfg.optim_wrapper.optimizer
    expected = ('AdamW', 6e-5, 0.01) if upernet else ('AdamW', 1e-4, 0.05)
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == expected
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end == 160000
    assert cfg.param_scheduler[-1].type == 'PolyLR' and cfg.auto_scale_lr.base_batch_size == 16
    assert [step.end for step in cfg.param_scheduler[:-1]] == ([1500] if upernet else [])
    crop = next(step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'RandomCrop')
    assert crop.crop_size == cfg.model.data_preprocessor.size == (512, 512)
    assert cfg.model.test_cfg.mode == 'whole'
    scales, flips = cfg.tta_pipeline[1].transforms[:2]
    assert [step.scale[1] for step in scales] == [256, 384, 512, 640, 768, 896]
    assert [flip.prob for flip in flips] == [0.0, 1.0] and cfg.tta_model.type == 'mmrope.heads.SegTTAModel'


@pytest.mark.parametrize('name', ['upernet_rope_mixed_vit_b_ade20k.py', 'mask2former_rope_mixed_swin_t_ade20k.py'])
def test_augmented_tests_predict_the_original_image(name, tmp_path):
    """All sizes, an eighth of them here, flipped and not: the mean of their probabilities, in the image's own size."""
    cfg = load(name)
    for resize in cfg.tta_pipeline[1].transforms[0]:
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
    assert len(singles) == 12
    assert torch.equal(merged[0].gt_sem_seg.data[0], torch.from_numpy(labels).long() - 1)
    assert merged[0].pred_sem_seg.shape == (101, 133)
    agree = merged[0].pred_sem_seg.data[0] == torch.stack(singles).mean(0).argmax(0)
    assert agree.float().mean() > 0.999  # ties may fall either way


@members('imagenet')
def test_imagenet_model_is_the_published_one(family, name):
    cfg = load(name)
    check_variant(cfg, name)
    backbone = {key: value for key, value in cfg.model.backbone.items() if key not in ('type', 'init_cfg')}
    defaults = dict(ape=False) if 'vit' in family else dict(rpb=False)
    (weights,) = [weights for weights in KNOWN if weights.arguments == defaults | backbone]
    assert cfg.model.backbone.type == f'mmrope.{weights.backbone}'
    assert cfg.test_evaluator == dict(type='Accuracy', topk=(1, 5))


@members(*TRAINED)
def test_every_training_watches_its_numbers_and_keeps_few_checkpoints(family, name):
    cfg = load(name)
    assert [hook.type for hook in cfg.custom_hooks] == ['mmrope.FiniteLossHook', 'mmrope.LogFreqsHook']
    assert 1 <= cfg.default_hooks.checkpoint.max_keep_ckpts <= 3


@members('mask_rcnn_vit', 'mask_rcnn_swin', 'dino', 'upernet', 'mask2former')
def test_eight_processes_make_the_batch_of_the_learning_rate(family, name):
    """Of ViTDet's recipe, sixteen as its authors have it; eight with the configs that accumulate."""
    cfg = load(name)
    processes = 16 if family == 'mask_rcnn_vit' else 8
    step = processes * cfg.train_dataloader.batch_size * cfg.optim_wrapper.get('accumulative_counts', 1)
    assert step == cfg.auto_scale_lr.base_batch_size


@members('mask_rcnn_vit')
def test_vitdet_sees_the_epochs_it_says(family, name):
    cfg = load(name)
    iteration = (16 if family == 'mask_rcnn_vit' else 8) * cfg.train_dataloader.batch_size
    assert cfg.train_cfg.max_iters * iteration / 118_000 == pytest.approx(25 if '_25e_' in name else 100, rel=1e-4)


@pytest.mark.parametrize('shape', [(480, 640), (1500, 500)])
@pytest.mark.parametrize('options, padded', [({}, (1024, 1024)), ({'pad_size_divisor': 32}, None)])
def test_vitdet_pads_images_to_a_square_after_normalising_them(shape, options, padded, tmp_path):
    """In training and in tests, unless the option leaves it out."""
    from mmdet.registry import MODELS, TRANSFORMS

    cfg = load('mask_rcnn_rope_mixed_vit_b_coco.py')
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


@members('upernet_vit')
def test_an_absolute_embedding_of_upernet_is_learned_on_the_grid_of_the_crop(family, name):
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmseg'):
        backbone = build(load(name)).backbone
    shape = (1, 32 * 32, backbone.embed_dims) if '_ape_' in name else None
    assert getattr(backbone.pos_embed, 'shape', None) == shape


@members('digits')
def test_model_built_from_a_digits_config_gives_every_parameter_a_gradient(family, name):
    cfg = load(name)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build(cfg)
        batch = BATCHES[cfg.default_scope](cfg)
        data = model.data_preprocessor(batch, True)
        model.parse_losses(model.forward(**data, mode='loss'))[0].backward()
    without = [name for name, param in model.named_parameters() if param.grad is None]
    assert not without


SEGMENTERS = FAMILIES['digits'][2:]


@pytest.mark.parametrize('name', SEGMENTERS)
def test_digits_are_segmented_at_half_size_and_scored_at_whole(name, tmp_path):
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


def test_labels_of_the_digits_segmenters_lie_where_the_image_does():
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


@pytest.mark.parametrize('name', SEGMENTERS)
def test_last_layer_of_the_digits_segmenters_starts_large(name):
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = build(load(name))
        model.init_weights()
    assert model.decode_head.conv_seg.weight.std().item() == pytest.approx(0.1, rel=0.15)
