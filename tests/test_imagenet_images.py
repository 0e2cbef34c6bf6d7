"""Images of ImageNet are prepared as the authors of the published weights prepare them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from PIL import Image
from torchvision import transforms

from mmrope.commands.cli import parse_size
from mmrope.commands.sizes import size_overrides

ROOT = Path(__file__).parents[1] / 'configs'
CONFIGS = {
    'imagenet_vit': ROOT / 'imagenet_rope_mixed_vit_s.py',
    'imagenet_swin': ROOT / 'imagenet_rope_mixed_swin_t.py',
}


def authors_transforms(family: str, size: int) -> transforms.Compose:
    """The authors' way to test: deit/datasets.py with --eval-crop-ratio 1.0, SwinTransformer/data/build.py."""
    shorter = int(size / 1.0) if family == 'imagenet_vit' else int((256 / 224) * size)
    return transforms.Compose(
        [
            transforms.Resize(shorter, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )


IN_DOCS = {  # what to change for 384 pixels
    'imagenet_vit': {'1.scale': 384, '2.crop_size': 384},
    'imagenet_swin': {'1.scale': 438, '2.crop_size': 384},
}


@pytest.mark.parametrize('family', IN_DOCS)
@pytest.mark.parametrize('size', [224, 384])
@pytest.mark.parametrize('shape', [(500, 375), (301, 467), (224, 224)], ids=str)
def test_imagenet_tensors_are_the_authors(family: str, size: int, shape: tuple[int, int], tmp_path: Path) -> None:
    """By the options in docs/imagenet.md, which tools/test_resolutions.py has to find too."""
    cfg = Config.fromfile(CONFIGS[family])
    options = {f'test_dataloader.dataset.pipeline.{key}': value for key, value in IN_DOCS[family].items()}
    if size != 224:
        assert size_overrides(cfg, parse_size('384')) == options
        cfg.merge_from_dict(options)
    image = np.random.default_rng(0).integers(0, 256, (*shape[::-1], 3), np.uint8)
    image = Image.fromarray(cv2.GaussianBlur(image, (5, 5), 1.5))
    image.save(tmp_path / 'image.png')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        from mmpretrain.registry import MODELS, TRANSFORMS

        pipeline = Compose([TRANSFORMS.build(step) for step in cfg.test_dataloader.dataset.pipeline])
        data = pseudo_collate([pipeline(dict(img_path=str(tmp_path / 'image.png'), gt_label=0))])
        ours = MODELS.build(cfg.model.data_preprocessor)(data)['inputs']
    theirs = authors_transforms(family, size)(image)
    assert ours.shape == (1, *theirs.shape)
    assert (ours[0] - theirs).abs().max() < 1e-6
