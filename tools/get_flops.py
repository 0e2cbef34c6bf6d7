"""``mmrope flops`` as a script: python tools/get_flops.py --help."""

from mmrope.commands.main import tool

main = tool('flops', 'get_flops.py')

if __name__ == '__main__':
    main()
