"""Libraries that read some formats and are no part of the base installation: for their licence, or their size."""

import importlib
import importlib.util
from types import ModuleType

from imgtx.errors import ImageError, UsageError


def extra(module: str, name: str, what: str) -> ModuleType:
    """Import a library of the extra `name`. Raises `ImageError` (unsupported), which says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImageError(
            "unsupported",
            f'{what}; imgtx reads it with an extra that is not installed here: pip install "imgtx[{name}]", or convert '
            "it to JPEG or PNG",
        ) from error


def check_installed(module: str, name: str, option: str) -> None:
    """Raise UsageError, which says how to get it, where the library of the extra `name` is absent."""
    if not importlib.util.find_spec(module):
        raise UsageError(f'{option} needs an extra that is not installed here: pip install "imgtx[{name}]"')
