"""``mmrope sweep`` as a script: python tools/test_resolutions.py --help."""

from mmrope.commands.main import tool

main = tool('sweep', 'test_resolutions.py')

if __name__ == '__main__':
    main()
