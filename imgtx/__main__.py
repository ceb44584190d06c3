"""`python -m imgtx`: the command line, which the package `jobs` holds.

This is the one module of the library that imports upward (tests/test_layers.py), and nothing imports it.
"""

import sys

from jobs.cli import main

if __name__ == "__main__":
    sys.exit(main(prog_name="imgtx"))
