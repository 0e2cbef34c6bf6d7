"""An oracle: EoMT as transformers has it, on the weights of mmrope's, and the numbers that it gives.

transformers breaks MMPreTrain in the same process, so this file is run on its own, with a transformers 5 that may lie
anywhere on PYTHONPATH. It writes the numbers of ``eomt_numbers.npz`` beside it, which tests/models/test_eomt.py reads:

    PYTHONPATH=.:FOLDER_OF_TRANSFORMERS python tests/helpers/transformers_eomt.py tests/helpers/eomt_numbers.npz
"""

import sys
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmrope import DINOv3ViT, RoPEViT
from mmrope.models import EoMT

SIDE, PATCH, DIM, DEPTH, HEADS, OPEN = 48, 16, 32, 4, 2, 2
QUERIES, CLASSES, POINTS = 5, 4, 50
ARCH = dict(embed_dims=DIM, depth=DEPTH, num_heads=HEADS)
COMMON = dict(img_size=SIDE, with_cls_token=True, num_registers=4, final_norm=True, out_indices=(), open_blocks=OPEN)
MODELS = ('dinov2', 'dinov3')  # absolute positions without a rotation, and the centred rotation
MODES = {'eval': (0.0, 0.0), 'masked': (1.0, 1.0), 'annealed': (0.7, 0.3)}
SEED = 7


def build(model: str) -> tuple[RoPEViT, EoMT]:
    """mmrope's modules, with weights that depend on their names alone."""
    if model == 'dinov2':
        backbone = RoPEViT(ARCH, patch_size=PATCH, rope=None, ape=True, **COMMON)
    else:
        backbone = DINOv3ViT(ARCH, patch_size=PATCH, norm_eps=1e-6, **COMMON)
    eomt = EoMT(DIM, CLASSES, QUERIES, OPEN, PATCH)
    with torch.no_grad():
        for name, param in [*backbone.named_parameters(), *eomt.named_parameters()]:
            values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(param.shape))
            is_scale = 'gamma' in name or (param.ndim == 1 and name.endswith('weight'))
            param.copy_(torch.from_numpy(1 + 0.2 * values if is_scale else 0.3 * values))
    return backbone, eomt


def images(batch: int = 2) -> Tensor:
    return torch.from_numpy(np.random.RandomState(1).standard_normal((batch, 3, SIDE, SIDE))).float()


def truth() -> tuple[list[Tensor], list[Tensor]]:
    """Labels and masks of two images; boxes of several sizes."""
    masks = torch.zeros(5, SIDE, SIDE, dtype=torch.long)
    boxes = [(0, 0, 20, 30), (20, 5, 28, 9), (3, 31, 40, 17), (0, 0, 48, 48), (30, 30, 7, 18)]
    for mask, (top, left, height, width) in zip(masks, boxes, strict=True):
        mask[top : top + height, left : left + width] = 1
    return [torch.tensor([1, 3, 0]), torch.tensor([2, 1])], [masks[:3], masks[3:]]


def transformers_state(model: str, backbone: RoPEViT, eomt: EoMT) -> dict[str, Tensor]:
    """The weights under the names that transformers has for them."""
    ours = dict(backbone.state_dict())
    patches = 'embeddings.patch_embeddings' + ('.projection' if model == 'dinov2' else '')
    state = {
        'embeddings.cls_token': ours['cls_token'],
        'embeddings.register_tokens': ours['reg_token'],
        **{f'{patches}.{part}': ours[f'patch_embed.proj.{part}'] for part in ('weight', 'bias')},
        **{f'layernorm.{part}': ours[f'norm.{part}'] for part in PARTS},
    }
    if model == 'dinov2':
        state['embeddings.position_embeddings.weight'] = ours['pos_embed'][0]
    for i in range(DEPTH):
        block = {key.removeprefix(f'blocks.{i}.'): value for key, value in ours.items() if f'blocks.{i}.' in key}
        state |= {f'layers.{i}.{key}': value for key, value in transformers_block(model, block).items()}
    return state | transformers_head(eomt.state_dict())


PARTS = ('weight', 'bias')


def transformers_block(model: str, block: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {'layer_scale1.lambda1': block['gamma_1'], 'layer_scale2.lambda1': block['gamma_2']}
    names = {'norm1': 'norm1', 'norm2': 'norm2'}
    names |= {'mlp.fc1': 'mlp.fc1', 'mlp.fc2': 'mlp.fc2'} if model == 'dinov2' else {}
    names |= {'mlp.up_proj': 'mlp.fc1', 'mlp.down_proj': 'mlp.fc2'} if model == 'dinov3' else {}
    names['attention.out_proj' if model == 'dinov2' else 'attention.o_proj'] = 'attn.proj'
    for part in PARTS:
        out |= {f'{theirs}.{part}': block[f'{ours}.{part}'] for theirs, ours in names.items()}
        for name, rows in zip('qkv', block[f'attn.qkv.{part}'].chunk(3)):
            turned = model == 'dinov3' and name != 'v'
            out[f'attention.{name}_proj.{part}'] = by_halves(rows) if turned else rows
    return out


def by_halves(rows: Tensor) -> Tensor:
    """From pairs of neighbouring channels, x first, to pairs half a head apart, y first."""
    pairs = rows.unflatten(0, (HEADS, -1, 2))  # (heads, pairs, 2, ...)
    along_x, along_y = pairs.chunk(2, dim=1)
    return torch.cat((along_y, along_x), dim=1).transpose(1, 2).flatten(0, 2)


def transformers_head(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {'query.weight': ours['queries']}
    for part in PARTS:
        out[f'class_predictor.{part}'] = ours[f'classes.{part}']
        out |= {f'mask_head.fc{i + 1}.{part}': ours[f'masks.{2 * i}.{part}'] for i in range(3)}
        for i in range(2):
            names = {0: 'conv1', 3: 'layernorm2d'} | ({2: 'conv2'} if part == 'weight' else {})
            for j, name in names.items():
                out[f'upscale_block.block.{i}.{name}.{part}'] = ours[f'upscale.{i}.{j}.{part}']
    return out


def transformers_model(model: str) -> nn.Module:
    import transformers

    kind = 'Eomt' if model == 'dinov2' else 'EomtDinov3'
    own = dict(mlp_ratio=4) if model == 'dinov2' else dict(intermediate_size=4 * DIM, key_bias=True)
    own |= dict(pos_embed_rescale=None) if model == 'dinov3' else {}  # or it would move positions in training
    config = getattr(transformers, f'{kind}Config')(
        hidden_size=DIM,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        image_size=SIDE,
        patch_size=PATCH,
        num_blocks=OPEN,
        num_queries=QUERIES,
        num_labels=CLASSES,
        num_register_tokens=4,
        train_num_points=POINTS,
        **own,
    )
    theirs = getattr(transformers, f'{kind}ForUniversalSegmentation')(config)
    report = theirs.load_state_dict(transformers_state(model, *build(model)), strict=False)
    left = {'attn_mask_probs', 'criterion.empty_weight', 'embeddings.mask_token'}
    assert not report.unexpected_keys and set(report.missing_keys) <= left, report
    return theirs


def predictions(theirs: nn.Module, mode: str, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """All predictions, classes and masks; transformers returns the last alone."""
    seen, predict = [], type(theirs).predict

    def spy(tokens: Tensor) -> tuple[Tensor, Tensor]:
        masks, classes = predict(theirs, tokens)
        seen.append((classes, masks))
        return masks, classes

    theirs.predict = spy
    theirs.train(mode != 'eval')
    theirs.attn_mask_probs.copy_(torch.tensor(MODES[mode]))
    torch.manual_seed(SEED)
    theirs(x)
    return seen


def losses(theirs: nn.Module, classes: Tensor, masks: Tensor) -> list[float]:
    """Class, mask and dice loss, weighted."""
    labels, targets = truth()
    torch.manual_seed(SEED)
    out = theirs.criterion(masks, classes, [target.float() for target in targets], labels)
    return [out[name].item() * weight for name, weight in theirs.weight_dict.items()]


def numbers() -> dict[str, np.ndarray]:
    """What the tests compare: all logits of classes, every third pixel of the masks, gradients' norms, losses."""
    out: dict[str, Any] = {}
    for model in MODELS:
        theirs = transformers_model(model)
        for mode in MODES:
            theirs.zero_grad()
            made = predictions(theirs, mode, images())
            out[f'{model}.{mode}.classes'] = torch.stack([classes for classes, _ in made])
            out[f'{model}.{mode}.masks'] = torch.stack([masks for _, masks in made])[..., ::3, ::3]
            sum(classes.square().mean() + masks.square().mean() for classes, masks in made).backward()
            out[f'{model}.{mode}.query_grad'] = theirs.query.weight.grad
            out[f'{model}.{mode}.losses'] = torch.tensor([losses(theirs, *prediction) for prediction in made])
    return {key: value.detach().numpy() for key, value in out.items()}


if __name__ == '__main__':
    sys.modules['mmpretrain'] = None  # type: ignore[assignment]
    np.savez_compressed(sys.argv[1], **numbers())
