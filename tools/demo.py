"""``mmrope demo`` as a script: python tools/demo.py --help."""

from mmrope.commands.main import tool

main = tool('demo', 'demo.py')

if __name__ == '__main__':
    main()
