"""MMEngine keeps loggers, scopes and loaders for a whole process; tests that run it leave none."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from mmengine.visualization import Visualizer


def managers() -> tuple[type, ...]:
    """Return the classes that keep their instances; a host's visualizer is one as soon as it is imported."""
    return DefaultScope, MessageHub, MMLogger, Visualizer, *Visualizer.__subclasses__()


@contextmanager
def isolated() -> Iterator[None]:
    """Undo what a tool or a runner changes in its process when it is called inside this one."""
    before = {manager: dict(manager._instance_dict) for manager in managers()}
    MMLogger._instance_dict.clear()  # an older logger would write to what an older test captured
    try:
        with mock.patch.dict(os.environ), mock.patch.object(CheckpointLoader, '_schemes', CheckpointLoader._schemes):
            os.environ.pop('LOCAL_RANK', None)
            yield
    finally:
        for manager in managers():
            manager._instance_dict.clear()
            manager._instance_dict.update(before.get(manager, {}))
