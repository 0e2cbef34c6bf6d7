"""Curves and images of a training in TensorBoard or Weights & Biases, through MMEngine's own backends."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config

from .errors import CommandError
from .hosts import type_name

BACKENDS = {'tensorboard': 'TensorboardVisBackend', 'wandb': 'WandbVisBackend'}
INTERVAL = 10  # validation iterations between two images, where the config does not say; the hosts' 50 or 5000 are many


def log_to(cfg: Config, names: Sequence[str]) -> None:
    """Send losses, metrics and images of each validation to trackers, beside the logs in the work dir.

    Args:
        cfg: config of a training; changed in place.
        names: of :data:`BACKENDS`.

    Raises:
        CommandError: if a package is missing, or the config has no visualizer.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise CommandError(f'--log-to {missing[0]}: the package is not installed; pip install {" ".join(missing)}')
    if not cfg.get('visualizer'):
        raise CommandError('--log-to: the config has no visualizer')
    backends = [dict(backend) for backend in cfg.visualizer.get('vis_backends') or [dict(type='LocalVisBackend')]]
    known = set(map(type_name, backends))
    for name in names:
        if BACKENDS[name] not in known:
            run = dict(init_kwargs=dict(name=Path(cfg.work_dir).name)) if name == 'wandb' else {}
            backends.append(dict(type=BACKENDS[name], **run))
    cfg.visualizer.vis_backends = backends
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook:
        hook[drawing_switch(hook)] = True
        hook.setdefault('interval', INTERVAL)


def drawing_switch(hook: dict) -> str:
    """Return the argument of a visualization hook that makes it draw: MMPreTrain's has a name of its own."""
    return 'enable' if type_name(hook) == 'VisualizationHook' else 'draw'
