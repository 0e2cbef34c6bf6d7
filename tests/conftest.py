"""What the tests share: tolerances, and torch settings that make runs repeatable."""

import pytest
import torch

# Largest absolute difference allowed between two ways to compute the same values of order 1, by dtype of the
# computation. A few roundings of the dtype each: eps is 2.2e-16, 1.2e-7, 9.8e-4, 7.8e-3.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def close():
    """``close(ours, theirs)``: shapes equal, values within the tolerance of ``dtype`` (that of ``ours``)."""

    def check(ours: torch.Tensor, theirs: torch.Tensor, dtype: torch.dtype | None = None) -> None:
        assert ours.shape == theirs.shape
        tolerance = TOLERANCE[dtype or ours.dtype]
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=tolerance)

    return check
