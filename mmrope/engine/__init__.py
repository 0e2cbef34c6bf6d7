"""What MMEngine's runner uses."""

from .compiling import CompileBackboneHook
from .drawing import DrawPredictionsHook
from .layer_decay import LayerDecayOptimWrapperConstructor
from .numbers import FiniteLossHook, LogFreqsHook
from .saving import WholeCheckpointHook

__all__ = [
    'CompileBackboneHook',
    'DrawPredictionsHook',
    'FiniteLossHook',
    'LayerDecayOptimWrapperConstructor',
    'LogFreqsHook',
    'WholeCheckpointHook',
]
