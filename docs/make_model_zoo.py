"""Write docs/model_zoo.md from the configs, mmrope/weights/known.py and the measurements in configs/metafile.yml."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import cleandoc
from pathlib import Path
from typing import Any

import timm
import yaml
from mmengine.config import Config

from mmrope.weights.known import FAMILY_WEIGHTS, KNOWN, FamilyWeights, KnownWeights

ROOT = Path(__file__).parents[1]
CONFIGS, PAGE = ROOT / 'configs', ROOT / 'docs' / 'model_zoo.md'
HUB = 'https://huggingface.co/'
README = "the authors' README, https://github.com/naver-ai/rope-vit"
BASELINE = (
    "the authors' README, for a baseline that they trained; these weights are Microsoft's, for which "
    'https://github.com/microsoft/Swin-Transformer has 81.2 (T), 83.2 (S) and 83.5 (B) at 224'
)
INTRODUCTION = f"""\
# Model zoo

Every config, the published weights that its backbone starts from, the numbers that others report for the
model, and what was measured with this repository. *Not found* means that a number could not be read, not that there is
none. No published weights have both RoPE and a relative position bias (RPB), so their bias tables start from scratch.
Numbers in square brackets refer to the [sources](#sources). `mmrope weights` lists the weights;
[Pretrained weights](weights.md) describes how they load.

A config combines a backbone of `configs/_base_/backbones/` with a recipe of `configs/_base_/recipes/`. Other pairs need
a config of three lines, in any folder:

```python
_base_ = [
    __import__('mmrope').config_path('_base_/backbones/rope_axial_swin_s.py'),
    __import__('mmrope').config_path('_base_/recipes/upernet_swin.py'),
]
model = dict(backbone=_base_.backbone)
```

For a ViT-S, ViT-L or Swin-B, also set the channels of the neck and the heads, as the configs of these sizes do.

`python docs/{Path(__file__).name}` writes this page from the configs, the table of
[known weights](../mmrope/weights/known.py) and the measurements in [configs/metafile.yml](../configs/metafile.yml).
"""


@dataclass(frozen=True)
class Section:
    """A table of the page.

    Args:
        title: its heading.
        prefix: how the names of its configs begin.
        note: what is said above the table.
        unpublished: cell of a config without published numbers.
        unmeasured: cell of a config without measurements of ours.
    """

    title: str
    prefix: str
    note: str
    unpublished: str = 'not found'
    unmeasured: str = 'not trained yet'


SECTIONS = (
    Section(
        'ImageNet-1k classification',
        'imagenet_',
        """
        Top-1 accuracy in percent at 224 and 384 pixels. These configs test the published weights, trained at 224, with
        the authors' image preparation. They have no training recipe.
        """,
        unmeasured='not measured yet',
    ),
    Section(
        'Mask R-CNN',
        'mask_rcnn_',
        """
        The paper reports no Mask R-CNN. On the ViT the recipe is ViTDet's, tuned for weights of masked autoencoders
        (MAE); with these, detectron2 has 51.6 box AP and 45.9 mask AP for ViT-B, 55.5 and 49.2 for ViT-L. RoPE-ViT's
        weights were trained with labels: expect clearly less, and compare its configs with each other only. Images are
        padded to 1024 x 1024 in training and tests. `--cfg-options model.data_preprocessor.pad_size_divisor=32` tests
        without the padding, for models without an absolute embedding (ape); report the option along with the result.
        RoPE-ViT's configs train 100 epochs on 16 GPUs with 4 images each, those with `8x4_accum2` on 8 GPUs and the one
        with `1x4_accum16` on one (`25e`, `36e`: that many epochs); those of other families 25 epochs on 8 GPUs; those
        of Swin-T 12 epochs, or 36 (`3x`), at batch 16. On Swin-T with RPB, MMDetection reports 42.7 box AP and
        39.3 mask AP after 12 epochs, 46.0 and 41.6 after 36 (3x).
        """,
        unpublished='none',
    ),
    Section(
        'Faster R-CNN',
        'faster_rcnn_',
        """
        Boxes alone, for data without masks: the recipes of Mask R-CNN without its mask head. The paper reports none.
        """,
        unpublished='none',
    ),
    Section(
        'Cascade R-CNN',
        'cascade_rcnn_',
        """
        Boxes alone, with three box heads for stricter and stricter boxes. On the ViT the heads are those of ViTDet's
        Cascade Mask R-CNN, on the Swin those of MMDetection's Cascade R-CNN. The paper reports none.
        """,
        unpublished='none',
    ),
    Section(
        'DINO',
        'dino_',
        """
        Box AP on COCO after 12 epochs. The paper's numbers are taken from two transcriptions that agree. The recipe on
        the ViT is detrex's, which reports 50.2 for ViT-B with weights of masked autoencoders (MAE) and relative
        positions. For Swin only the gain of RoPE-Mixed over the relative position bias (RPB) was found. On a GPU,
        compile MMCV's operators: they have a kernel for deformable attention ([install](install.md)).
        """,
    ),
    Section(
        'UperNet',
        'upernet_',
        """
        mIoU on ADE20k at 512 pixels; ms is multi-scale testing. The paper's numbers are taken from one transcription.
        """,
    ),
    Section(
        'Mask2Former',
        'mask2former_',
        """
        mIoU on ADE20k. For the paper's models only the gain of RoPE-Mixed over the relative position bias (RPB) was
        found. On a GPU, compile MMCV's operators: they have a kernel for deformable attention ([install](install.md)).
        """,
    ),
    Section(
        'EoMT',
        'eomt_',
        """
        mIoU on ADE20k at 512 pixels, PQ and mask AP on COCO at 640. The published numbers are of others' trainings with
        the same weights; [EoMT](eomt.md) says where the recipes differ. The configs on DINOv2 test the authors' whole
        models, and can train on from them.
        """,
    ),
    Section(
        'Linear segmentation',
        'linear_',
        """
        mIoU on ADE20k of a linear layer on a frozen backbone. These configs are this project's choice, not the
        authors' protocol; beside them are the numbers to reproduce.
        """,
    ),
    Section(
        'Digits',
        '',
        """
        The [quickstarts](quickstart.md) on scenes of handwritten digits, and the classifiers of the
        [experiment with image sizes](resolution.md) on images of single digits. From scratch, in percent.
        """,
        unpublished='none',
        unmeasured='see the experiment',
    ),
)


def section_of(name: str) -> Section:
    """Find the table of a config."""
    return SECTIONS[-1] if name.endswith('_digits') else next(part for part in SECTIONS if name.startswith(part.prefix))


@dataclass
class Measurements:
    """Numbers by config, and the sources that were cited so far.

    Args:
        published: metrics and source by name of a config, of others.
        results: the same, of this repository.
    """

    published: Mapping[str, tuple[Mapping[str, Any], str]]
    results: Mapping[str, tuple[Mapping[str, Any], str]]
    sources: list[str] = field(default_factory=list)

    def cell(self, entry: tuple[Mapping[str, Any], str] | None, missing: str) -> str:
        """Write metrics as ``51.2 box AP`` with the number of their source, or ``missing``."""
        if entry is None:
            return missing
        metrics, source = entry
        if source not in self.sources:
            self.sources.append(source)
        return f'{", ".join(f"{value} {name}" for name, value in metrics.items())} [{self.sources.index(source) + 1}]'


def read_measurements(metafile: Mapping[str, Any], configs: Sequence[str]) -> Measurements:
    """Read the lists of configs/metafile.yml.

    Raises:
        ValueError: if a measurement names no config or no source, or a config twice.
    """
    lists: list[dict[str, tuple[Mapping[str, Any], str]]] = []
    for key in ('Published', 'Results'):
        lists.append({})
        for row in metafile[key]:
            if row['Config'] not in configs or row['Config'] in lists[-1] or not row.get('Source'):
                raise ValueError(f'{key} must name a config, each once, and a Source, but got {row}')
            lists[-1][row['Config']] = (row['Metrics'], row['Source'])
    return Measurements(*lists)


def weights_of(name: str) -> KnownWeights | FamilyWeights | None:
    """Find the published weights that the backbone of a config starts from."""
    checkpoint = (Config.fromfile(CONFIGS / f'{name}.py').model.backbone.get('init_cfg') or {}).get('checkpoint')
    return next((weights for weights in (*KNOWN, *FAMILY_WEIGHTS) if weights.checkpoint == checkpoint), None)


def repository_of(weights: KnownWeights | FamilyWeights) -> str:
    """Name the repository of some weights on the Hub, which for timm's is not always timm's own."""
    hub, _, name = weights.checkpoint.partition(':')
    if hub == 'hf-hub':
        return name
    return timm.get_pretrained_cfg(name).hf_hub_id


def whole_model_of(name: str) -> str | None:
    """Name the repository of the whole model that a config starts from, if it names one."""
    source = Config.fromfile(CONFIGS / f'{name}.py').get('load_from')
    return source and source.removeprefix('hf-hub:')


def row(name: str, part: Section, measurements: Measurements) -> str:
    """Write the line of a config."""
    weights, published = weights_of(name), measurements.published.get(name)
    link, repository = 'none', repository_of(weights) if weights else whole_model_of(name)
    if repository:
        link = f'[{repository.partition("/")[2]}]({HUB}{repository})'
    if isinstance(weights, KnownWeights) and part.prefix == 'imagenet_':
        metrics = {'top-1 at 224': weights.top1_224, 'top-1 at 384': weights.top1_384}
        published = (metrics, BASELINE if weights.rpb else README)
    cells = [
        f'[{name}](../configs/{name}.py)',
        link,
        measurements.cell(published, part.unpublished),
        measurements.cell(measurements.results.get(name), part.unmeasured),
    ]
    return f'| {" | ".join(cells)} |'


def lines(metafile: Mapping[str, Any]) -> Iterator[str]:
    """Write the lines of the page."""
    configs = sorted(path.stem for path in CONFIGS.glob('*.py'))
    measurements = read_measurements(metafile, configs)
    yield INTRODUCTION
    for part in SECTIONS:
        yield from (f'## {part.title}', '', cleandoc(part.note), '')
        yield from ('| config | weights of the backbone | published | ours |', '|---|---|---|---|')
        yield from (row(name, part, measurements) for name in configs if section_of(name) is part)
        yield ''
    yield from ('## Sources', '', *(f'{i}. {source}' for i, source in enumerate(measurements.sources, 1)), '')


def page() -> str:
    """Write the whole page."""
    return '\n'.join(lines(yaml.safe_load((CONFIGS / 'metafile.yml').read_text())))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write or check the page as the command line says."""
    parser = argparse.ArgumentParser(prog=Path(__file__).name, description=__doc__)
    parser.add_argument('--check', action='store_true', help='write nothing; fail if the page is not up to date')
    args = parser.parse_args(arguments)
    text = page()
    if not args.check:
        PAGE.write_text(text)
    elif not PAGE.is_file() or PAGE.read_text() != text:
        sys.exit(f'{PAGE.relative_to(ROOT)} is not up to date: run python docs/{Path(__file__).name}')


if __name__ == '__main__':
    main()
