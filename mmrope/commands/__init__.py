"""The programs: ``mmrope COMMAND`` and the files of ``tools/``."""
