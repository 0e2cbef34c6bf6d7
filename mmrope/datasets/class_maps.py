"""Class maps of other values than the numbers of the classes, for configs of MMSegmentation."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.fileio import get
from mmseg.datasets.transforms import LoadAnnotations as HostLoadAnnotations
from PIL import Image


class LoadAnnotations(HostLoadAnnotations):
    """MMSegmentation's step that loads a class map, for maps of colours or of values that are no class numbers.

    Args:
        values: class of each value 0, 1, ... of the maps, or of each of ``colours``; 255 is ignored. Higher values stay
            what they are.
        colours: red, green and blue of each value, for maps in colours.
        kwargs: of the host's step.
    """

    def __init__(self, values: Sequence[int], colours: Sequence[Sequence[int]] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = np.arange(256, dtype=np.uint8)
        self.table[: len(values)] = values
        self.codes = None if colours is None else _code(np.asarray(colours))

    def _load_seg_map(self, results: dict[str, Any]) -> None:
        """Load the map ``seg_map_path`` as ``gt_seg_map``, ``(H, W)`` uint8.

        Raises:
            ValueError: if a map has a colour that is none of ``colours``.
        """
        if self.codes is None:
            super()._load_seg_map(results)
        else:
            results['gt_seg_map'] = self._indices(results['seg_map_path'], self.codes)
            results['seg_fields'].append('gt_seg_map')
        results['gt_seg_map'] = self.table[results['gt_seg_map']]

    def _indices(self, path: str, codes: np.ndarray) -> np.ndarray:
        """Return the index of the colour of each pixel among ``codes``."""
        with Image.open(io.BytesIO(get(path, backend_args=self.backend_args))) as image:
            pixels = _code(np.asarray(image.convert('RGB')))
        order = np.argsort(codes)
        place = np.searchsorted(codes, pixels, sorter=order)
        index = order[np.minimum(place, len(order) - 1)]
        if (wrong := codes[index] != pixels).any():
            code = int(pixels[wrong][0])
            raise ValueError(f'{path} has the colour {code >> 16} {code >> 8 & 255} {code & 255}, which is no class')
        return index.astype(np.uint8)


def _code(colours: np.ndarray) -> np.ndarray:
    """Turn colours ``(..., 3)`` into one number each."""
    return colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
