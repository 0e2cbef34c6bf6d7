"""Mask2Former in slide mode, and test-time augmentation of segmentors, as mmrope's configs have them."""

from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmrope import config_path

CLASSES = 5


@pytest.fixture(scope='module')
def mask2former() -> torch.nn.Module:
    """The model of the Mask2Former configs, a small one, tested with padding."""
    cfg = Config.fromfile(config_path('mask2former_rope_mixed_swin_s_ade20k.py')).model
    cfg.backbone.update(arch=dict(embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2)), init_cfg=None)
    head = cfg.decode_head
    head.update(in_channels=[8, 16, 32, 64], feat_channels=32, out_channels=32, num_classes=CLASSES, num_queries=7)
    head.positional_encoding.num_feats = head.pixel_decoder.positional_encoding.num_feats = 16
    head.pixel_decoder.encoder.num_layers, head.transformer_decoder.num_layers = 1, 2
    head.pixel_decoder.encoder.layer_cfg.self_attn_cfg.embed_dims = 32
    head.pixel_decoder.encoder.layer_cfg.ffn_cfg.update(embed_dims=32, feedforward_channels=32)
    for part in ('self_attn_cfg', 'cross_attn_cfg'):
        head.transformer_decoder.layer_cfg[part].embed_dims = 32
    head.transformer_decoder.layer_cfg.ffn_cfg.update(embed_dims=32, feedforward_channels=32)
    head.loss_cls.class_weight = [1.0] * CLASSES + [0.1]
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg).eval()
    torch.nn.init.normal_(model.decode_head.cls_embed.weight)  # or all queries would say the same of all pixels
    torch.nn.init.normal_(model.decode_head.query_feat.weight, std=3)
    return model


def predict(model: torch.nn.Module, image: torch.Tensor, **test_cfg: Any) -> torch.Tensor:
    """``(classes, H, W)`` for an image ``(3, H, W)``, as a test pads and predicts it."""
    size = tuple(image.shape[1:])
    sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=size, flip=None))
    before, model.test_cfg = model.test_cfg, Config(test_cfg)
    try:
        with torch.no_grad():
            (out,) = model.test_step(dict(inputs=[image], data_samples=[sample]))
    finally:
        model.test_cfg = before
    return out.seg_logits.data


def test_slide_windows_that_cover_a_padded_image_once_give_what_each_gives_by_itself(
    mask2former: torch.nn.Module,
) -> None:
    image = torch.randint(0, 255, (3, 90, 120), dtype=torch.uint8)  # padded to 96 x 128
    data = dict(inputs=[image], data_samples=[SegDataSample()])
    padded = mask2former.data_preprocessor(data)['inputs']  # (1, 3, 96, 128)
    halves = [predict_whole(mask2former, half) for half in padded.split(64, dim=3)]
    ours = predict(mask2former, image, mode='slide', crop_size=(96, 64), stride=(96, 64))
    torch.testing.assert_close(ours, torch.cat(halves, dim=3)[0, :, :90, :120], rtol=0, atol=1e-5)
    assert (halves[0] - halves[1]).abs().max() > 0.01  # or any order of the windows would do


def predict_whole(model: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """``(1, classes, H, W)`` for normalised images that nothing is padded in, by the definition in the paper."""
    with torch.no_grad():
        samples = [SegDataSample(metainfo=dict(img_shape=tuple(inputs.shape[2:])))]
        classes, masks = (out[-1] for out in model.decode_head(model.extract_feat(inputs), samples))
    masks = torch.nn.functional.interpolate(masks, inputs.shape[2:], mode='bilinear', align_corners=False)
    return torch.einsum('bqc,bqhw->bchw', classes.softmax(-1)[..., :-1], masks.sigmoid())


def test_one_slide_window_over_a_padded_image_is_whole_inference(mask2former: torch.nn.Module) -> None:
    image = torch.randint(0, 255, (3, 90, 120), dtype=torch.uint8)
    slide = predict(mask2former, image, mode='slide', crop_size=(512, 512), stride=(341, 341))
    torch.testing.assert_close(slide, predict(mask2former, image, mode='whole'), rtol=0, atol=1e-6)


class Segmentor(torch.nn.Module):
    """A segmentor with the parts that the merging asks for."""

    def __init__(self, head: torch.nn.Module, out_channels: int) -> None:
        super().__init__()
        self.decode_head, self.out_channels = head, out_channels

    def test_step(self) -> None: ...


def merged(module: torch.nn.Module, *views: torch.Tensor) -> SegDataSample:
    """The views of one image, merged as the segmentation configs have it."""
    cfg = Config.fromfile(config_path('_base_/segmentation_runtime.py')).tta_model
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(dict(cfg, module=module))
    samples = [SegDataSample(seg_logits=PixelData(data=view), metainfo=dict(img_path='a.png')) for view in views]
    for sample in samples:
        sample.gt_sem_seg = PixelData(data=torch.zeros(1, *views[0].shape[1:]))
    (out,) = model.merge_preds([samples])
    assert out.img_path == 'a.png' and out.gt_sem_seg.shape == views[0].shape[1:]
    return out


def test_views_of_mask2former_are_averaged_as_the_probabilities_they_are(mask2former: torch.nn.Module) -> None:
    image = torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8)
    one, other = (predict(mask2former, view, mode='whole') for view in (image, 255 - image))
    same = merged(mask2former, one, one)
    torch.testing.assert_close(same.seg_logits.data, one)
    assert torch.equal(same.pred_sem_seg.data, one.argmax(0, keepdim=True))
    torch.testing.assert_close(merged(mask2former, one, other).seg_logits.data, (one + other) / 2)


def test_views_of_maskformer_are_averaged_too() -> None:
    from mmrope.heads.segmentation import HostMaskFormerHead

    head = HostMaskFormerHead.__new__(HostMaskFormerHead)
    torch.nn.Module.__init__(head)
    views = torch.tensor([[0.9, 0.0, 0.05], [0.2, 0.7, 0.75]]).view(2, 3, 1, 1)
    out = merged(Segmentor(head, 3), *views)
    torch.testing.assert_close(out.seg_logits.data.flatten(), torch.tensor([0.55, 0.35, 0.4]))


def test_logits_of_other_heads_are_made_probabilities_first() -> None:
    views = torch.tensor([[2.0, 0.0], [-1.0, 1.0]]).view(2, 2, 1, 1)
    out = merged(Segmentor(torch.nn.Identity(), 2), *views)
    first = [1 / (1 + torch.e**-2), 1 / (1 + torch.e**2)]
    assert out.seg_logits.data.flatten().tolist() == pytest.approx([sum(first) / 2, 1 - sum(first) / 2])


@pytest.mark.parametrize('cascade', [False, True])
def test_one_class_is_found_where_its_mean_probability_passes_the_threshold(cascade: bool) -> None:
    """The segmentor has taken the sigmoid: after another no probability would be below 0.5."""
    head = torch.nn.Identity()
    head.threshold = 0.3
    module = Segmentor(torch.nn.ModuleList([torch.nn.Identity(), head]) if cascade else head, 1)
    out = merged(module, torch.tensor([[[0.1, 0.2]]]), torch.tensor([[[0.2, 0.9]]]))
    torch.testing.assert_close(out.seg_logits.data.flatten(), torch.tensor([0.15, 0.55]))
    assert out.pred_sem_seg.data.flatten().tolist() == [0, 1]
