"""`python -m jobs.cli`."""

from jobs.cli.entry import run

if __name__ == "__main__":
    run()
