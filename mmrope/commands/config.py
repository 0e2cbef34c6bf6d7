"""Reading the configs that a command line names."""

import argparse
import os
from collections.abc import Mapping
from glob import glob
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .. import config_path
from ..checkpoints.loading import refuse_code_in_checkpoints
from .checks.config import check_keys, check_options, did_you_mean, set_data_root
from .checks.variables import check_variables
from .errors import CommandError
from .hosts import leave_out_multimodal_models, scope_of


def read_config(args: argparse.Namespace) -> Config:
    """Prepare the process, then read the config that a command line names.

    Raises:
        CommandError: as :func:`load_config`.
    """
    prepare_process()
    return load_config(args.config, args.cfg_options, getattr(args, 'data_root', None))


def prepare_process() -> None:
    """Refuse code in checkpoints, and make the hosts importable, in this process."""
    refuse_code_in_checkpoints()
    leave_out_multimodal_models()


def load_config(name: str, options: Mapping[str, Any] | None = None, data_root: str | None = None) -> Config:
    """Read a config and override parts of it.

    Args:
        name: path of the config, or the name of one of mmrope's.
        options: overrides by their path in the config, ``{'model.backbone.rope': 'axial'}``.
        data_root: folder of the data set, in place of the config's ``data_root``.

    Raises:
        CommandError: if there is no such config, it cannot be read, or an option or the folder does not fit it.
    """
    path = find_config(name)
    try:
        cfg = Config.fromfile(path)
    except Exception as error:
        raise CommandError(f'{path} cannot be read as a config: {type(error).__name__}: {error}') from error
    check_keys(cfg)
    check_variables(cfg)
    if options:
        check_options(cfg, options)
        cfg.merge_from_dict(dict(options))
    if data_root is not None:
        set_data_root(cfg, data_root)
    if scope := scope_of(cfg):  # the pure-Python configs of the hosts have none, and parts named in text need one
        cfg.default_scope = scope
    return cfg


def find_config(name: str) -> str:
    """Return the path of a config: a file, or one of mmrope's by its name.

    Raises:
        CommandError: if there is no such config.
    """
    if os.path.isfile(name):
        return name
    folder = Path(config_path('_base_/default_runtime.py')).parents[1]
    own = {path.stem: str(path) for path in folder.glob('*.py')}
    if name.removesuffix('.py') in own:
        return own[name.removesuffix('.py')]
    siblings = glob(os.path.join(os.path.dirname(name), '*.py'))
    raise CommandError(f'there is no config {name}{did_you_mean(name, [*siblings, *own])}')
