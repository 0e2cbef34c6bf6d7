"""Hooks, the optimiser constructor and the schedule that configs name for MMEngine's runner."""

from .checkpoint_hook import WholeCheckpointHook
from .compile_hook import CompileBackboneHook
from .compress_gradients_hook import CompressGradientsHook
from .draw_predictions_hook import DrawPredictionsHook
from .finite_loss_hook import FiniteLossHook
from .layer_decay import LayerDecayOptimWrapperConstructor
from .log_freqs_hook import LogFreqsHook
from .mask_annealing_hook import MaskAnnealingHook
from .staged_poly_lr import StagedPolyLR

__all__ = [
    'CompileBackboneHook',
    'DrawPredictionsHook',
    'CompressGradientsHook',
    'FiniteLossHook',
    'LayerDecayOptimWrapperConstructor',
    'LogFreqsHook',
    'MaskAnnealingHook',
    'StagedPolyLR',
    'WholeCheckpointHook',
]
