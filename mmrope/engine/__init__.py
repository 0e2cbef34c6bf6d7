"""What MMEngine's runner uses."""

from .layer_decay import LayerDecayOptimWrapperConstructor
from .saving import WholeCheckpointHook

__all__ = ['LayerDecayOptimWrapperConstructor', 'WholeCheckpointHook']
