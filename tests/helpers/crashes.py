"""Trainings that are killed: a program of its own, since it forks, and imports everything once.

    python crashes.py CONFIG FOLDER KILLS SEED

trains CONFIG to its end in FOLDER/whole, then in FOLDER/killed with KILLS times ``kill -9`` at random moments, always
going on with --resume, and prints what came of it as JSON. A kill comes a random number of iterations and a random part
of one after the training went on, so few that it never ends by itself.
"""

import json
import os
import random
import signal
import sys
import time
from glob import glob
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmrope.checkpoints.files import PART, is_whole
from mmrope.checkpoints.loading import load_checkpoint
from tests.helpers.tiny import load_tool

STARTING = 0.1  # share of the kills that come before the first iteration
WRITING = 0.03  # seconds after an iteration in which a checkpoint may be on its way


class Tell(Hook):
    """Writes a byte to a pipe when the training begins, and one after each iteration."""

    priority = 'HIGHEST'

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def before_train(self, runner: Runner) -> None:
        os.write(self.pipe, b'.')

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        os.write(self.pipe, b'.')


def fork_training(main: Any, arguments: list[str], log: Path) -> tuple[int, int]:
    """Train in a child; return its process id and a pipe in which it tells how far it is."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    try:
        with open(log, 'a') as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        register = Runner.register_default_hooks

        def register_with_tell(self: Runner, hooks: Any) -> None:
            register(self, hooks)
            self.register_hook(Tell(writer))

        Runner.register_default_hooks = register_with_tell
        main(arguments)
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def finish(main: Any, arguments: list[str], log: Path) -> tuple[float, int, float]:
    """Train to the end; return the seconds before the training began, its iterations, and the seconds of one."""
    start = time.monotonic()
    child, reader = fork_training(main, arguments, log)
    os.read(reader, 1)
    begin = time.monotonic()
    iterations = 0
    while os.read(reader, 1):
        iterations += 1
    status = os.waitpid(child, 0)[1]
    os.close(reader)
    if status:
        sys.exit(f'the training failed, see {log}:\n{log.read_text()[-3000:]}')
    return begin - start, iterations, (time.monotonic() - begin) / max(iterations, 1)


def main(config: str, folder: str, kills: int, seed: int) -> None:
    """Do as the module says."""
    rng = random.Random(seed)
    train = load_tool('train').main
    whole, killed, log = Path(folder, 'whole'), Path(folder, 'killed'), Path(folder, 'log')
    start, iterations, seconds = finish(train, [config, '--work-dir', str(whole)], log)
    report = {'kills': 0, 'while_writing': 0, 'with_checkpoint': 0, 'cut_short': 0, 'passed_over': 0}
    arguments = [config, '--work-dir', str(killed), '--resume']
    while report['kills'] < kills:
        child, reader = fork_training(train, arguments, log)
        if rng.random() > STARTING:
            for _ in range(rng.randrange(iterations // kills)):
                os.read(reader, 1)
            time.sleep(rng.uniform(0, rng.choice((seconds, WRITING))))
        else:
            time.sleep(rng.uniform(0, start))
        os.kill(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)[1]
        os.close(reader)
        if ended != signal.SIGKILL:
            sys.exit(f'the training ended by itself after {report["kills"]} kills: {ended}, see {log}')
        report['kills'] += 1
        report['while_writing'] += bool(glob(f'{killed}/*{PART}'))
        checkpoints = glob(f'{killed}/*.pth')
        report['with_checkpoint'] += bool(checkpoints)
        report['cut_short'] += sum(not is_whole(path) for path in checkpoints)
    finish(train, arguments, log)
    report['passed_over'] = log.read_text().count('passed over')
    report['part_files'] = len(glob(f'{killed}/*{PART}'))
    ends = [load_checkpoint((path / 'last_checkpoint').read_text()) for path in (whole, killed)]
    report['iterations'] = [end['meta']['iter'] for end in ends]
    report['same'] = all(same(*(end[part] for end in ends)) for part in ('state_dict', 'optimizer', 'param_schedulers'))
    print(json.dumps(report))


def same(one: Any, two: Any) -> bool:
    """Compare nested containers of tensors, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(value, two[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
