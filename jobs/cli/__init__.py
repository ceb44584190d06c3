"""The command line: one file per group of commands; each reads its options, calls one function of `jobs`, prints."""

from jobs.cli.app import main

__all__ = ["main"]
