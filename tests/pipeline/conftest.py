"""The rules of fast tests, see `tests/support/door.py`."""

from tests.support.door import locked_door

__all__ = ["locked_door"]
