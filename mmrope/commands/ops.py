"""Show which operators MMCV calls, and make torchvision's available to every program if MMCV has none compiled.

`import mmrope` does this for one program. This command writes a file into site-packages that does it whenever Python
starts, for scripts that import MMDetection or MMSegmentation before mmrope. If MMCV has compiled operators, the file is
removed.
"""

import argparse
import sysconfig
from pathlib import Path

from ..checkpoints.files import write_whole
from ..ops import compiled, describe
from .errors import CommandError

# The line does nothing once mmrope is uninstalled.
LINE = "import importlib.util; importlib.util.find_spec('mmrope') and __import__('mmrope')\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the command takes no arguments."""


def run(args: argparse.Namespace) -> None:
    """Write the file or remove it, and print which operators MMCV calls.

    Raises:
        CommandError: if there is no MMCV, or site-packages cannot be written to.
    """
    path = Path(sysconfig.get_path('purelib'), 'mmrope_ops.pth')
    try:
        if compiled():
            path.unlink(missing_ok=True)
            print(describe())
            return
        with write_whole(path) as part:
            part.write_text(LINE)
    except ModuleNotFoundError as error:
        raise CommandError('MMCV is not installed; docs/install.md says which package to install') from error
    except OSError as error:
        raise CommandError(
            f'{path} cannot be changed ({error}); without it, programs must `import mmrope` before MMDetection'
        ) from error
    print(f'{describe()}\nEvery program in this environment finds them through {path}')
