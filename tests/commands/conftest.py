"""The fixtures of tests that run commands."""

from tests.helpers.fixtures import isolated_test, tiny_data, write_config  # noqa: F401
