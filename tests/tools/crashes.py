"""Trainings that are killed: a program of its own, since it forks, and imports everything once.

    python crashes.py CONFIG FOLDER KILLS SEED

trains CONFIG to its end in FOLDER/whole, then in FOLDER/killed with KILLS times ``kill -9`` at random moments, always
going on with --resume, and prints what came of it as JSON.
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
from tiny import load_tool

from mmrope.engine.checkpoint import load_checkpoint
from mmrope.engine.saving import PART, WholeCheckpointHook, is_whole

STARTING = 0.1  # share of the kills that come before the first iteration


def fork_training(main: Any, arguments: list[str], log: Path) -> tuple[int, int]:
    """Train in a child; return its process id and a pipe that says when the training begins."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    try:
        with open(log, 'a') as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        before_train = WholeCheckpointHook.before_train

        def tell(self: Any, runner: Any) -> None:
            before_train(self, runner)
            os.write(writer, b'.')

        WholeCheckpointHook.before_train = tell
        main(arguments)
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def finish(main: Any, arguments: list[str], log: Path) -> float:
    """Train to the end; return the seconds from the first iteration on."""
    child, reader = fork_training(main, arguments, log)
    os.read(reader, 1)
    begin = time.monotonic()
    status = os.waitpid(child, 0)[1]
    os.close(reader)
    if status:
        sys.exit(f'the training failed, see {log}:\n{log.read_text()[-3000:]}')
    return time.monotonic() - begin


def main(config: str, folder: str, kills: int, seed: int) -> None:
    """Do as the module says."""
    rng = random.Random(seed)
    train = load_tool('train').main
    whole, killed, log = Path(folder, 'whole'), Path(folder, 'killed'), Path(folder, 'log')
    seconds = finish(train, [config, '--work-dir', str(whole)], log)
    report = {'kills': 0, 'while_writing': 0, 'with_checkpoint': 0, 'cut_short': 0, 'passed_over': 0}
    arguments = [config, '--work-dir', str(killed), '--resume']
    while report['kills'] < kills:
        child, reader = fork_training(train, arguments, log)
        if rng.random() > STARTING:
            os.read(reader, 1)
        time.sleep(rng.uniform(0, 1.5 * seconds / kills))
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
