"""Puts the configs into the built package, where OpenMMLab's packages have theirs: mmrope/.mim/configs."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """``build_py``, with the configs and their metafile; an editable installation finds them in the checkout."""

    def run(self) -> None:
        """Copy the modules, then the configs."""
        super().run()
        if not self.editable_mode:
            for path in sorted([*Path('configs').rglob('*.py'), Path('configs', 'metafile.yml')]):
                target = Path(self.build_lib, 'mmrope', '.mim', path)
                self.mkpath(str(target.parent))
                self.copy_file(str(path), str(target))


setup(cmdclass=dict(build_py=BuildWithConfigs))
