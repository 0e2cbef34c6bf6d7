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
        self.colours = None if colours is None else _code(np.asarray(colours))
        self.order = None if self.colours is None else np.argsort(self.colours)

    def _load_seg_map(self, results: dict[str, Any]) -> None:
        """Load the map ``seg_map_path`` as ``gt_seg_map``, ``(H, W)`` uint8.

        Raises:
            ValueError: if a map has a colour that is none of ``colours``.
        """
        if self.colours is None:
            super()._load_seg_map(results)
        else:
            results['gt_seg_map'] = self._indices(results['seg_map_path'])
            results['seg_fields'].append('gt_seg_map')
        results['gt_seg_map'] = self.table[results['gt_seg_map']]

    def _indices(self, path: str) -> np.ndarray:
        """Return the index of the colour of each pixel."""
        with Image.open(io.BytesIO(get(path, backend_args=self.backend_args))) as image:
            codes = _code(np.asarray(image.convert('RGB')))
        place = np.searchsorted(self.colours, codes, sorter=self.order)
        index = self.order[np.minimum(place, len(self.order) - 1)]
        if (wrong := self.colours[index] != codes).any():
            code = int(codes[wrong][0])
            raise ValueError(f'{path} has the colour {code >> 16} {code >> 8 & 255} {code & 255}, which is no class')
        return index.astype(np.uint8)


def _code(colours: np.ndarray) -> np.ndarray:
    """Turn colours ``(..., 3)`` into one number each."""
    return colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
