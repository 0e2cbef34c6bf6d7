"""``mmrope plot`` as a script: python tools/plot_training.py --help."""

from mmrope.commands.main import tool

main = tool('plot', 'plot_training.py')

if __name__ == '__main__':
    main()
