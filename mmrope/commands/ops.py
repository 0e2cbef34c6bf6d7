"""Say which operators MMCV calls, and make torchvision's available to every program where MMCV has none compiled.

`import mmrope` does that for one program. This command writes a line into site-packages that does it when Python
starts, for scripts that import MMDetection or MMSegmentation before mmrope. Where MMCV has compiled operators the line
is removed.
"""

import argparse
import sysconfig
from pathlib import Path

from ..checkpoints.files import write_whole
from ..ops import compiled, describe
from .errors import CommandError

# Without mmrope, after it was uninstalled say, the line does nothing.
LINE = "import importlib.util; importlib.util.find_spec('mmrope') and __import__('mmrope')\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the command takes no arguments."""


def run(args: argparse.Namespace) -> None:
    """Write the line or remove it, and say which operators there are.

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
        raise CommandError('there is no MMCV in this environment; docs/install.md says which one to install') from error
    except OSError as error:
        raise CommandError(
            f'{path} cannot be changed ({error}); without it, programs have to `import mmrope` before MMDetection'
        ) from error
    print(f'{describe()}\nEvery program of this environment finds them: {path}')
