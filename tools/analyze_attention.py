"""``mmrope attention`` as a script: python tools/analyze_attention.py --help."""

from mmrope.commands.main import tool

main = tool('attention', 'analyze_attention.py')

if __name__ == '__main__':
    main()
