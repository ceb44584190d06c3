"""`python -m imgtx`: the command line, which the package `jobs` holds.

This is the one module of the library that imports upward (tests/test_layers.py), and nothing imports it.
"""

from jobs.cli.entry import run

if __name__ == "__main__":
    run("imgtx")
