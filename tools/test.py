"""``mmrope test`` as a script: python tools/test.py --help."""

from mmrope.commands.main import tool

main = tool('test', 'test.py')

if __name__ == '__main__':
    main()
