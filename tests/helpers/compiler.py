"""What needs a C++ compiler, which mmrope does not, and what needs a newer compiler of PyTorch than the oldest."""

import os
import shutil

import pytest
import torch

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get('CXX', 'g++')) is None, reason='Inductor needs a C++ compiler on the CPU'
)
needs_any_size = pytest.mark.skipif(
    torch.__version__ < '2.8', reason='PyTorch before 2.8 makes no graph that serves every size'
)
