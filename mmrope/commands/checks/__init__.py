"""Checks of a config, its files and its data, made before anything is built."""
