"""``mmrope digits`` as a script: python tools/make_digits.py --help."""

from mmrope.commands.main import tool

main = tool('digits', 'make_digits.py')

if __name__ == '__main__':
    main()
