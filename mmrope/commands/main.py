"""The program ``mmrope COMMAND``. Torch and the hosts are imported only when the work of a command begins."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module

from .. import __version__
from .errors import Run, errors_in_one_sentence

COMMANDS = {
    'train': 'train a detector, a segmenter or a classifier',
    'test': 'test a checkpoint: mAP, mIoU or accuracy',
    'demo': 'predict images: draw the predictions and write them as JSON',
    'sweep': 'test models at many image sizes',
    'attention': 'measure and draw the attention of a trained model',
    'frequencies': 'measure and draw the RoPE frequencies of a trained model',
    'flops': 'count parameters and FLOPs at any image size',
    'benchmark': 'compare time and memory of backbones',
    'export': 'export a backbone, or a whole segmenter, classifier or EoMT, to ONNX',
    'convert': 'convert weights between layouts',
    'weights': 'list the published weights that load by name',
    'ops': 'show which operators MMCV calls, and make them available to every program',
    'digits': 'make the small data sets of the quickstart',
    'plot': 'plot the losses and metrics of a training',
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the command line names."""
    names = '\n'.join(f'  {name:<13}{text}' for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog='mmrope',
        description=f'Rotary position embedding for detection and segmentation.\n\ncommands:\n{names}',
        epilog='mmrope COMMAND --help lists the arguments of a command.',
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
        arguments: the command line after the command's name; this process's by default.
    """
    module = import_module(f'.{command}', __package__)
    parser = argparse.ArgumentParser(prog=prog, description=module.__doc__)
    module.add_arguments(parser)
    parser.add_argument('--traceback', action='store_true', help='show the full traceback of an error')
    args = parser.parse_args(arguments)
    args.prog, args.run = prog, Run(resumable=hasattr(args, 'resume'))
    with errors_in_one_sentence(prog, args.run, args.traceback):
        module.run(args)


def tool(command: str, name: str) -> Callable[[Sequence[str] | None], None]:
    """Return the ``main`` of a file in ``tools/``, whose messages begin with the name of the file."""
    return partial(run, command, name)
