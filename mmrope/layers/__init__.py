"""Plain PyTorch layers. They know neither MMEngine nor images."""

from .attention import Attention
from .block import Block
from .position import RelativePositionBias, resize_bias_table, resize_pos_embed
from .rope import RoPE, axial_freqs, mixed_freqs, rotary_table, rotate
from .windows import Span, Windows, cut, even_windows, restore, shifted_windows

__all__ = [
    'Attention',
    'Block',
    'RelativePositionBias',
    'RoPE',
    'Span',
    'Windows',
    'axial_freqs',
    'cut',
    'even_windows',
    'mixed_freqs',
    'resize_bias_table',
    'resize_pos_embed',
    'restore',
    'rotary_table',
    'rotate',
    'shifted_windows',
]
