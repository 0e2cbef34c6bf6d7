"""EoMT's heads within the models of the hosts: losses, predictions, slide mode, instances and panoptic maps."""

from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from mmrope.heads import EoMTDecodeHead, EoMTHead, SegTTAModel
from tests.helpers import transformers_eomt as oracle
from tests.models.test_eomt import NUMBERS

CLASSES, THINGS, STUFF = 5, 3, 2
BACKBONE = dict(
    type='mmrope.RoPEViT',
    arch=dict(embed_dims=32, depth=4, num_heads=2),
    patch_size=8,
    img_size=64,
    out_indices=(),
    final_norm=True,
    open_blocks=2,
    with_cls_token=True,
    layer_scale_init_value=1.0,
)
HEAD = dict(embed_dims=32, num_queries=7, num_blocks=2, patch_size=8, train_cfg=dict(num_points=64))
SEMANTIC = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.0] * 3, std=[60.0] * 3, size_divisor=32, test_cfg=dict(size_divisor=32)
    ),
    backbone=BACKBONE,
    decode_head=dict(type='mmrope.heads.EoMTDecodeHead', num_classes=CLASSES, **HEAD),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
PANOPTIC = dict(
    type='MaskFormer',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[127.0] * 3, std=[60.0] * 3, pad_size_divisor=32, pad_mask=True, pad_seg=True
    ),
    backbone=BACKBONE,
    panoptic_head=dict(type='mmrope.heads.EoMTHead', num_things_classes=THINGS, num_stuff_classes=STUFF, **HEAD),
    panoptic_fusion_head=dict(
        type='MaskFormerFusionHead', num_things_classes=THINGS, num_stuff_classes=STUFF, loss_panoptic=None
    ),
    train_cfg=dict(num_points=64),
    test_cfg=dict(
        panoptic_on=True,
        instance_on=True,
        semantic_on=False,
        max_per_image=10,
        object_mask_thr=0.0,
        iou_thr=0.0,
        filter_low_score=True,
    ),
)


def build(cfg: dict, scope: str) -> torch.nn.Module:
    """A model whose predictions differ from place to place."""
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(Config(cfg)._cfg_dict)
        model.init_weights()
    torch.manual_seed(0)
    for param in model.parameters():
        if param.ndim > 1:
            torch.nn.init.normal_(param, std=0.3)
    return model


def segmentor(**changes: Any) -> torch.nn.Module:
    return build({**SEMANTIC, **changes}, 'mmseg')


def maps(*labels: Tensor) -> list[SegDataSample]:
    """Samples with label maps ``(H, W)``."""
    samples = []
    for label in labels:
        size = tuple(label.shape)
        sample = SegDataSample(gt_sem_seg=PixelData(data=label[None]))
        sample.set_metainfo(dict(img_shape=size, ori_shape=size, pad_shape=size))
        samples.append(sample)
    return samples


def seg_batch(*labels: Tensor) -> dict[str, Any]:
    images = [torch.randint(0, 255, (3, *label.shape), dtype=torch.uint8) for label in labels]
    return dict(inputs=images, data_samples=maps(*labels))


def losses_of(model: torch.nn.Module, batch: dict[str, Any]) -> dict[str, Tensor]:
    with DefaultScope.overwrite_default_scope('mmseg' if 'Encoder' in type(model).__name__ else 'mmdet'):
        data = model.data_preprocessor(batch, training=True)
        return model(**data, mode='loss')


NAMES = {f'{layer}loss_{kind}' for layer in ('', 'd0.', 'd1.') for kind in ('cls', 'mask', 'dice')}


def test_every_prediction_of_a_segmentor_has_its_losses_and_every_parameter_its_gradient() -> None:
    model = segmentor().train()
    labels = torch.randint(0, CLASSES, (2, 56, 90))
    labels[:, :9] = 255
    losses = losses_of(model, seg_batch(*labels))
    assert {name.removeprefix('decode.') for name in losses} == NAMES
    sum(losses.values()).backward()
    missing = [name for name, param in model.named_parameters() if not param.grad.abs().sum() > 0]
    assert not missing


def test_images_without_a_label_have_finite_losses_and_no_parameter_is_left_out() -> None:
    model = segmentor().train()
    losses = losses_of(model, seg_batch(*torch.full((2, 64, 64), 255)))
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert losses['decode.loss_mask'] == losses['decode.loss_dice'] == 0 < losses['decode.loss_cls']
    assert all(param.grad is not None for param in model.parameters()), 'or DDP would wait for it'


@pytest.mark.parametrize('model', oracle.MODELS)
@pytest.mark.parametrize('mode', oracle.MODES)
def test_losses_equal_those_of_transformers(model: str, mode: str) -> None:
    backbone, eomt = oracle.build(model)
    head = EoMTHead(
        oracle.DIM, oracle.CLASSES, 0, oracle.QUERIES, oracle.OPEN, train_cfg=dict(num_points=oracle.POINTS)
    )
    head.eomt = eomt
    for module in (backbone, head):
        module.train(mode != 'eval')
    eomt.mask_probabilities = list(oracle.MODES[mode])
    torch.manual_seed(oracle.SEED)
    truth = [InstanceData(labels=labels, masks=masks) for labels, masks in zip(*oracle.truth())]
    for classes, masks, theirs in zip(*head(backbone(oracle.images())), np.load(NUMBERS)[f'{model}.{mode}.losses']):
        torch.manual_seed(oracle.SEED)
        ours = head.loss_by_feat([classes], [masks], truth, [{}, {}])
        assert [float(ours[f'loss_{kind}']) for kind in ('cls', 'mask', 'dice')] == pytest.approx(theirs, rel=1e-5)


def whole(model: torch.nn.Module, inputs: Tensor) -> Tensor:
    """``(1, classes, H, W)`` by the definition, for normalised images that nothing is padded in."""
    with torch.no_grad():
        classes, masks = (out[-1] for out in model.decode_head(model.extract_feat(inputs)))
    masks = torch.nn.functional.interpolate(masks, inputs.shape[2:], mode='bilinear', align_corners=False)
    return torch.einsum('bqc,bqhw->bchw', classes.softmax(-1)[..., :-1], masks.sigmoid())


def predict(model: torch.nn.Module, image: Tensor, **test_cfg: Any) -> SegDataSample:
    model.eval().test_cfg = Config(test_cfg)
    size = tuple(image.shape[1:])
    sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=size, flip=None))
    with torch.no_grad():
        return model.test_step(dict(inputs=[image], data_samples=[sample]))[0]


def test_a_prediction_is_the_sum_over_the_queries_on_the_image() -> None:
    model = segmentor().eval()
    image = torch.randint(0, 255, (3, 90, 120), dtype=torch.uint8)  # padded to 96 x 128
    padded = model.data_preprocessor(dict(inputs=[image], data_samples=[SegDataSample()]))['inputs']
    out = predict(model, image, mode='whole')
    expected = whole(model, padded)[0, :, :90, :120]
    torch.testing.assert_close(out.seg_logits.data, expected, rtol=0, atol=1e-5)
    assert torch.equal(out.pred_sem_seg.data[0], expected.argmax(0)) and out.pred_sem_seg.data.unique().numel() > 1


def test_slide_windows_over_a_padded_image_are_what_each_gives_by_itself() -> None:
    model = segmentor().eval()
    image = torch.randint(0, 255, (3, 90, 120), dtype=torch.uint8)
    padded = model.data_preprocessor(dict(inputs=[image], data_samples=[SegDataSample()]))['inputs']
    halves = [whole(model, half) for half in padded.split(64, dim=3)]
    out = predict(model, image, mode='slide', crop_size=(96, 64), stride=(96, 64))
    torch.testing.assert_close(out.seg_logits.data, torch.cat(halves, 3)[0, :, :90, :120], rtol=0, atol=1e-5)
    assert (halves[0] - halves[1]).abs().max() > 0.01


def test_views_are_averaged_as_the_probabilities_they_are() -> None:
    model = segmentor().eval()
    views = [torch.rand(CLASSES, 4, 6) for _ in range(2)]
    samples = [SegDataSample(seg_logits=PixelData(data=view)) for view in views]
    (out,) = SegTTAModel(module=model).merge_preds([samples])
    torch.testing.assert_close(out.seg_logits.data, sum(views) / 2)


def test_an_auxiliary_head_can_take_a_map_before_the_open_blocks() -> None:
    auxiliary = dict(
        type='FCNHead',
        in_channels=32,
        in_index=0,
        channels=8,
        num_convs=1,
        num_classes=CLASSES,
        loss_decode=dict(type='CrossEntropyLoss'),
    )
    model = segmentor(backbone=dict(BACKBONE, out_indices=(1,)), auxiliary_head=auxiliary).train()
    losses = losses_of(model, seg_batch(*torch.randint(0, CLASSES, (2, 64, 64))))
    assert {'aux.loss_ce', 'decode.loss_cls'} <= set(losses)


@pytest.mark.parametrize('open_blocks, message', [(0, '2 and there must be no neck'), (3, 'backbone, 3, but got 2')])
def test_a_backbone_that_does_not_fit_is_named(open_blocks: int, message: str) -> None:
    out_indices = () if open_blocks else (-1,)
    model = segmentor(backbone=dict(BACKBONE, open_blocks=open_blocks, out_indices=out_indices))
    with pytest.raises(ValueError, match=f'open_blocks of the .*{message}'):
        model(torch.randn(1, 3, 64, 64), mode='tensor')


def test_no_object_weighs_a_tenth_of_a_class_unless_the_config_says_so() -> None:
    assert EoMTDecodeHead(8, 3).class_weight == [1.0, 1.0, 1.0, 0.1]
    loss = dict(type='mmdet.CrossEntropyLoss', class_weight=[1.0, 2.0, 0.5])
    head = EoMTHead(8, 1, 1, loss_cls=loss)
    assert head.class_weight == head.loss_cls.class_weight == [1.0, 2.0, 0.5]
    head = EoMTHead(8, 1, 1, loss_cls=dict(loss_weight=3.0, class_weight=None), loss_dice=dict(loss_weight=7.0))
    assert (head.loss_cls.loss_weight, head.loss_dice.loss_weight, head.loss_dice.eps) == (3.0, 7.0, 1.0)
    assert head.class_weight == head.loss_cls.class_weight == [1.0, 1.0, 0.1]


def instances(size: tuple[int, int], boxes: list[tuple[int, int, int, int]], stuff: bool = True) -> DetDataSample:
    masks = np.zeros((len(boxes), *size), np.uint8)
    for mask, (top, left, bottom, right) in zip(masks, boxes):
        mask[top:bottom, left:right] = 1
    sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size, scale_factor=(1.0, 1.0)))
    sample.gt_instances = InstanceData(
        labels=torch.arange(len(boxes)) % THINGS, masks=BitmapMasks(masks, *size), bboxes=torch.zeros(len(boxes), 4)
    )
    if stuff:
        seg = torch.full((1, *size), THINGS)
        seg[:, :, size[1] // 2 :] = THINGS + 1
        sample.gt_sem_seg = PixelData(sem_seg=seg)
    return sample


def detector(stuff: bool) -> torch.nn.Module:
    cfg = Config(PANOPTIC)
    if not stuff:
        cfg.merge_from_dict({f'panoptic_{part}.num_stuff_classes': 0 for part in ('head', 'fusion_head')})
        cfg.test_cfg.panoptic_on = False
    return build(cfg.to_dict(), 'mmdet')


@pytest.mark.parametrize('stuff', [True, False], ids=['panoptic', 'instances'])
def test_a_detector_learns_from_images_with_and_without_instances(stuff: bool) -> None:
    model = detector(stuff).train()
    samples = [instances((64, 90), [(0, 0, 30, 40), (20, 50, 60, 88)], stuff), instances((50, 64), [], stuff)]
    images = [torch.randint(0, 255, (3, *sample.img_shape), dtype=torch.uint8) for sample in samples]
    losses = losses_of(model, dict(inputs=images, data_samples=samples))
    assert set(losses) == NAMES
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(param.grad.abs().sum() > 0 for param in model.parameters())


@pytest.mark.parametrize('stuff', [True, False], ids=['panoptic', 'instances'])
def test_a_detector_predicts_on_the_image(stuff: bool) -> None:
    model = detector(stuff).eval()
    sample = DetDataSample(metainfo=dict(img_shape=(64, 90), ori_shape=(32, 45), scale_factor=(2.0, 2.0)))
    image = torch.randint(0, 255, (3, 64, 90), dtype=torch.uint8)
    with torch.no_grad():
        (out,) = model.test_step(dict(inputs=[image], data_samples=[sample]))
    assert out.pred_instances.masks.shape[1:] == (32, 45) and len(out.pred_instances) > 0
    assert out.pred_instances.labels.max() < THINGS
    assert ('pred_panoptic_seg' in out) == stuff
    assert not stuff or out.pred_panoptic_seg.sem_seg.shape == (1, 32, 45)


def test_the_classes_are_found_where_configs_look_for_them() -> None:
    import mmrope.heads

    assert {'EoMTDecodeHead', 'EoMTHead', 'SegTTAModel', 'Mask2FormerHead'} <= set(dir(mmrope.heads))
    with pytest.raises(AttributeError, match="module 'mmrope.heads' has no attribute 'Nothing'"):
        mmrope.heads.Nothing  # noqa: B018
