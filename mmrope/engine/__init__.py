"""What MMEngine's runner uses."""

from .checkpoint_hook import WholeCheckpointHook
from .compile_hook import CompileBackboneHook
from .compress_gradients_hook import CompressGradientsHook
from .draw_predictions_hook import DrawPredictionsHook
from .layer_decay import LayerDecayOptimWrapperConstructor
from .numbers import FiniteLossHook, LogFreqsHook

__all__ = [
    'CompileBackboneHook',
    'DrawPredictionsHook',
    'CompressGradientsHook',
    'FiniteLossHook',
    'LayerDecayOptimWrapperConstructor',
    'LogFreqsHook',
    'WholeCheckpointHook',
]
