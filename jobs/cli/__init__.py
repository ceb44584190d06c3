"""The command line: one file a group of commands; each reads its options, calls one function of `jobs`, prints."""

from jobs.cli.app import BUG, DONE, FAILURES, INTERRUPTED, USAGE, main

__all__ = ["BUG", "DONE", "FAILURES", "INTERRUPTED", "USAGE", "main"]
