"""``mmrope convert`` as a script: python tools/convert_weights.py --help."""

from mmrope.commands.main import tool

main = tool('convert', 'convert_weights.py')

if __name__ == '__main__':
    main()
