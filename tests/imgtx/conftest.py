"""Fast tests, without side effects: see `tests/support/no_side_effects.py`."""

from tests.support.no_side_effects import no_side_effects

__all__ = ["no_side_effects"]
