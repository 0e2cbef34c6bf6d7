"""Tensors on a GPU that is not there: shapes, devices and operators without values."""

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode


def _works() -> bool:
    try:
        with FakeTensorMode(), torch.device('cuda'):
            nn.Linear(1, 1)
    except RuntimeError:
        return False
    return True


needs_fake_gpu = pytest.mark.skipif(not _works(), reason='this PyTorch draws no fake weights for a GPU without one')
