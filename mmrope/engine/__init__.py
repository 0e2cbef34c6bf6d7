"""What MMEngine's runner uses."""

from .layer_decay import LayerDecayOptimWrapperConstructor
from .numbers import FiniteLossHook, LogFreqsHook

__all__ = ['FiniteLossHook', 'LayerDecayOptimWrapperConstructor', 'LogFreqsHook']
