"""Check a machine and a destination for what a run needs, before a run meets it."""
