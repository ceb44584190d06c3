"""Name the user of this process, for records."""

import getpass
import os


def user_name() -> str:
    """Return the user's name, or the number where the user has no name, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
