"""``mmrope export`` as a script: python tools/export_onnx.py --help."""

from mmrope.commands.main import tool

main = tool('export', 'export_onnx.py')

if __name__ == '__main__':
    main()
