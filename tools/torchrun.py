"""Run ``torchrun`` (``python -m torch.distributed.run``), silent when a process has failed with a message of its own.

``torchrun`` ends every failure with its own frames and a summary, above which the reason is hard to find. They stay for
a process that could not speak, such as one that was killed.
"""

import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

MESSAGE_GIVEN = (1, 2)  # exit codes of an exception and of a usage error


def run() -> None:
    """Run ``torchrun`` with the arguments of this process."""
    try:
        main()
    except ChildFailedError as error:
        failure = error.get_first_failure()[1]
        if failure.exitcode not in MESSAGE_GIVEN:
            raise
        sys.exit(failure.exitcode)


if __name__ == '__main__':
    run()
