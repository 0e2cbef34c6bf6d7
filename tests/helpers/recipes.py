"""One config of each recipe, for tests that would take long on all of them."""

import re
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[2] / 'configs'


def configs(pattern: str) -> list[object]:
    """Return the paths of the configs that match a glob pattern; all but one of each recipe are marked slow."""
    paths, recipes, found = sorted(CONFIGS.glob(pattern)), set(), []
    for path in paths:
        match = re.search(r'recipes/(\w+)\.py', path.read_text())
        recipe = match[1] if match else path.stem
        found.append(pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if recipe in recipes else []))
        recipes.add(recipe)
    return found
