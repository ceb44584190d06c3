"""Where imgtx keeps what it can fetch or make again: a folder of the user's cache."""

import os
from pathlib import Path


def user_cache() -> Path:
    """`~/.cache/imgtx`, or under XDG_CACHE_HOME, by the XDG rules; whoever removes it loses time alone."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imgtx"
