"""A Hub of the tests' own, and a cache of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub import Hub, serve
from huggingface_hub import constants


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A server that huggingface_hub and downloads by URL go to, with empty caches."""
    with serve() as hub:
        monkeypatch.setattr(constants, 'ENDPOINT', hub.url)
        monkeypatch.setattr(
            constants, 'HUGGINGFACE_CO_URL_TEMPLATE', hub.url + '/{repo_id}/resolve/{revision}/{filename}'
        )
        monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
        monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
        monkeypatch.setenv('NO_PROXY', '127.0.0.1,localhost')
        for name in ('HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN'):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'torch'))
        yield hub
