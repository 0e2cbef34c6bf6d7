"""What MMEngine's runner uses."""

from .layer_decay import LayerDecayOptimWrapperConstructor
from .numbers import FiniteLossHook, LogFreqsHook
from .saving import WholeCheckpointHook

__all__ = ['FiniteLossHook', 'LayerDecayOptimWrapperConstructor', 'LogFreqsHook', 'WholeCheckpointHook']
