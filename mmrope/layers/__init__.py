"""Plain PyTorch layers, independent of MMEngine and of images."""

from .attention import Attention
from .block import Block
from .position import RelativePositionBias, resize_bias_table, resize_pos_embed
from .rope import Positions, RoPE, axial_freqs, axis_angles, mixed_freqs, rotary_table, rotate
from .windows import Span, Windows, even_windows, one_window, reorder, shifted_windows, window_order

__all__ = [
    'Attention',
    'Block',
    'Positions',
    'RelativePositionBias',
    'RoPE',
    'Span',
    'Windows',
    'axial_freqs',
    'axis_angles',
    'even_windows',
    'mixed_freqs',
    'one_window',
    'reorder',
    'resize_bias_table',
    'resize_pos_embed',
    'rotary_table',
    'rotate',
    'shifted_windows',
    'window_order',
]
