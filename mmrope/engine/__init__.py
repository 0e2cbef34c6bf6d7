"""What MMEngine's runner uses."""

from .compiling import CompileBackboneHook
from .compression import CompressGradientsHook
from .layer_decay import LayerDecayOptimWrapperConstructor
from .numbers import FiniteLossHook, LogFreqsHook
from .predictions import DrawPredictionsHook
from .saving import WholeCheckpointHook

__all__ = [
    'CompileBackboneHook',
    'DrawPredictionsHook',
    'CompressGradientsHook',
    'FiniteLossHook',
    'LayerDecayOptimWrapperConstructor',
    'LogFreqsHook',
    'WholeCheckpointHook',
]
