"""Fast tests: `tests/support/no_side_effects.py` says what they cannot do."""

from tests.support.no_side_effects import no_side_effects

__all__ = ["no_side_effects"]
