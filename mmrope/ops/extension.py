"""Stand-in for ``mmcv._ext`` if MMCV has no compiled operators, with the same names and arguments.

MMCV's Python code allocates outputs and gradients and passes them in to be filled. An operator that is missing here
raises only when it is called, so importing ``mmcv.ops`` works.
"""

from collections.abc import Callable
from typing import Any, NoReturn

from mmrope.ops.deform_conv import deform_conv_backward_input as deform_conv_backward_input
from mmrope.ops.deform_conv import deform_conv_backward_parameters as deform_conv_backward_parameters
from mmrope.ops.deform_conv import deform_conv_forward as deform_conv_forward
from mmrope.ops.deform_conv import modulated_deform_conv_backward as modulated_deform_conv_backward
from mmrope.ops.deform_conv import modulated_deform_conv_forward as modulated_deform_conv_forward
from mmrope.ops.focal_loss import sigmoid_focal_loss_backward as sigmoid_focal_loss_backward
from mmrope.ops.focal_loss import sigmoid_focal_loss_forward as sigmoid_focal_loss_forward
from mmrope.ops.multi_scale_deform_attn import ms_deform_attn_backward as ms_deform_attn_backward
from mmrope.ops.multi_scale_deform_attn import ms_deform_attn_forward as ms_deform_attn_forward
from mmrope.ops.nms import nms as nms
from mmrope.ops.nms import nms_match as nms_match
from mmrope.ops.nms import softnms as softnms
from mmrope.ops.roi_align import roi_align_backward as roi_align_backward
from mmrope.ops.roi_align import roi_align_forward as roi_align_forward


def get_compiler_version() -> str:
    """Return the compiler version for MMCV's log."""
    return "none: torchvision's and PyTorch's operators"


def get_compiling_cuda_version() -> str:
    """Return the CUDA version of the operators for MMCV's log."""
    return 'not available'


def __getattr__(name: str) -> Callable[..., NoReturn]:
    """Return an operator that raises NotImplementedError when it is called."""
    if name.startswith('__'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def missing(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            f'the operator {name} needs an MMCV with compiled operators, which this environment does not have; '
            'run `OPS=compiled make setup` in a checkout of mmrope, or see docs/install.md'
        )

    missing.__name__ = name
    return missing
