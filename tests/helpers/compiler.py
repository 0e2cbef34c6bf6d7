"""What needs a C++ compiler, which mmrope does not."""

import os
import shutil

import pytest

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get('CXX', 'g++')) is None, reason='Inductor needs a C++ compiler on the CPU'
)
