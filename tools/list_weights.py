"""``mmrope weights`` as a script: python tools/list_weights.py --help."""

from mmrope.commands.main import tool

main = tool('weights', 'list_weights.py')

if __name__ == '__main__':
    main()
