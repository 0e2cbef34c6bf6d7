"""What the tests share: tolerances, and torch settings that make runs repeatable."""

import os
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path

if workers := os.environ.get('PYTEST_XDIST_WORKER_COUNT'):  # they share the cores; said before torch counts them
    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, os.cpu_count() // int(workers))))

if not Path('/dev/nvidiactl').exists():  # without a GPU Triton interprets its kernels; said before it is imported
    os.environ.setdefault('TRITON_INTERPRET', '1')

import pytest
import torch
from huggingface_hub import constants, file_download
from mmengine.config import Config
from mmengine.config import utils as config_utils
from mmengine.logging import MMLogger

from tests.helpers.hub import Hub, serve

# Tests read each config, its bases and the hundred metafiles of a host many times, but parse each file once.
config_utils.load = cache(config_utils.load)
parse_config = Config._file2dict
parse_config_once = cache(lambda *given, named: parse_config(*given, **dict(named)))
OWN_CONFIGS = Path(__file__).parents[1] / 'configs'


def _file2dict(filename: str | Path, *others: bool | None, **named: bool | None) -> tuple[dict, str, dict]:
    path = Path(filename).absolute()
    if OWN_CONFIGS in path.parents or 'site-packages' in path.parts:  # no test changes these
        return deepcopy(parse_config_once(str(path), *others, named=tuple(named.items())))
    return parse_config(filename, *others, **named)


Config._file2dict = _file2dict

# Largest absolute difference allowed between two ways to compute the same values of order 1, by dtype of the
# computation. A few roundings of the dtype each: eps is 2.2e-16, 1.2e-7, 9.8e-4, 7.8e-3.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _unpickling_as_pytorch_has_it() -> Iterator[None]:
    """Take back the switch of a tool that a test ran in this process."""
    yield
    os.environ.pop('TORCH_FORCE_WEIGHTS_ONLY_LOAD', None)


@pytest.fixture
def close() -> Callable[..., None]:
    """``close(ours, theirs)``: shapes equal, values within the tolerance of ``dtype`` (that of ``ours``)."""

    def check(ours: torch.Tensor, theirs: torch.Tensor, dtype: torch.dtype | None = None) -> None:
        assert ours.shape == theirs.shape
        tolerance = TOLERANCE[dtype or ours.dtype]
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=tolerance)

    return check


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """Records of MMEngine's logger, which is restored when the test ends."""
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'handlers', [*logger.handlers, caplog.handler])
    return caplog


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A server that huggingface_hub and downloads by URL go to, with empty caches."""
    with serve() as hub:
        template = hub.url + '/{repo_id}/resolve/{revision}/{filename}'
        monkeypatch.setattr(constants, 'ENDPOINT', hub.url)
        monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', template)
        monkeypatch.setattr(file_download, 'HUGGINGFACE_CO_URL_TEMPLATE', template, raising=False)  # before 1.0
        monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
        monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
        monkeypatch.setenv('NO_PROXY', '127.0.0.1,localhost')
        for name in ('HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN'):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'torch'))
        yield hub
