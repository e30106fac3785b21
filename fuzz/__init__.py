"""Fuzzing of everything that reads bytes of strangers: `make fuzz`, `python -m fuzz --help`."""
