"""``mmrope benchmark`` as a script: python tools/benchmark.py --help."""

from mmrope.commands.main import tool

main = tool('benchmark', 'benchmark.py')

if __name__ == '__main__':
    main()
