"""``mmrope train`` as a script: python tools/train.py --help."""

from mmrope.commands.main import tool

main = tool('train', 'train.py')

if __name__ == '__main__':
    main()
