"""Activation checkpointing that keeps what some operators compute."""

from collections.abc import Callable
from typing import Any

import pytest
import torch.utils.checkpoint


def selective_contexts() -> Callable[..., Any]:
    """PyTorch's function, which skips the test where there is none."""
    if not hasattr(torch.utils.checkpoint, 'create_selective_checkpoint_contexts'):
        pytest.skip('selective checkpointing needs PyTorch 2.5 or later')
    return torch.utils.checkpoint.create_selective_checkpoint_contexts
