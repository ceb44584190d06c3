"""One run: prepare, drive, account, show progress."""
