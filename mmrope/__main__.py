"""``python -m mmrope COMMAND``: the same as ``mmrope COMMAND``."""

from .commands.main import main

if __name__ == '__main__':
    main()
