"""``mmrope COMMAND``: finds the program and runs it. Torch and the hosts are imported when its work begins."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module

from .. import __version__
from .errors import Run, errors_in_one_sentence

COMMANDS = {
    'train': 'train a detector, a segmenter or a classifier',
    'test': 'test one: mAP, mIoU or accuracy',
    'demo': 'predict images, draw what is found and write it as JSON',
    'sweep': 'test at other image sizes',
    'attention': 'measure and draw what the attention of a trained model looks at',
    'frequencies': 'measure and draw the frequencies of a trained model',
    'flops': 'count parameters and FLOPs at any image size',
    'benchmark': 'measure time and memory of backbones side by side',
    'export': 'write a backbone as ONNX',
    'convert': 'convert weights between layouts',
    'weights': 'list the published weights that load by name',
    'ops': 'say which operators MMCV calls, and make them available to every program',
    'digits': 'make the small data sets of the quickstart',
    'plot': 'plot losses and metrics of a training',
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the command line begins with."""
    names = '\n'.join(f'  {name:<13}{text}' for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog='mmrope',
        description=f'Rotary position embedding for detection and segmentation.\n\ncommands:\n{names}',
        epilog='mmrope COMMAND --help describes the arguments of a command.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage='mmrope COMMAND ...',
    )
    parser.add_argument('--version', action='version', version=__version__)
    parser.add_argument('command', choices=COMMANDS, metavar='COMMAND', help=argparse.SUPPRESS)
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    command = parser.parse_args(arguments[:1]).command
    run(command, f'mmrope {command}', arguments[1:])


def run(command: str, prog: str, arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        command: its name in ``COMMANDS``.
        prog: name of the program in its messages.
        arguments: of the command line; those of this process by default.
    """
    module = import_module(f'.{command}', __package__)
    parser = argparse.ArgumentParser(prog=prog, description=module.__doc__)
    module.add_arguments(parser)
    parser.add_argument('--traceback', action='store_true', help='show the frames of an error, not only its message')
    args = parser.parse_args(arguments)
    args.prog, args.run = prog, Run(resumable=hasattr(args, 'resume'))
    with errors_in_one_sentence(prog, args.run, args.traceback):
        module.run(args)


def tool(command: str, name: str) -> Callable[[Sequence[str] | None], None]:
    """Return the program of a file of ``tools/``, whose messages begin with the name of the file."""
    return partial(run, command, name)
