"""``mmrope frequencies`` as a script: python tools/analyze_frequencies.py --help."""

from mmrope.commands.main import tool

main = tool('frequencies', 'analyze_frequencies.py')

if __name__ == '__main__':
    main()
