"""Physical resolution: how many pixels a picture has per inch, centimetre or metre when it is printed.

Formats store it in units of their own, some as whole numbers. It is kept exactly as fractions until it is written.
"""

from fractions import Fraction
from numbers import Rational
from typing import Any, NamedTuple

# What the units are in metres. "" is no unit: then x and y only say how much higher than wide a pixel is.
_METRES = {"inch": Fraction(254, 10_000), "cm": Fraction(1, 100), "metre": Fraction(1)}


class Density(NamedTuple):
    """Pixels in a `unit` (inch, cm, metre) along `x` and `y`; of unit "" only their ratio means something."""

    x: Fraction
    y: Fraction
    unit: str

    def per(self, unit: str) -> "Density":
        """Return the same in another unit; one without a unit stays as it is."""
        if not self.unit or unit == self.unit:
            return self
        factor = _METRES[unit] / _METRES[self.unit]
        return Density(self.x * factor, self.y * factor, unit)

    def turned(self, orientation: int) -> "Density":
        """Return it for pixels that were turned from EXIF `orientation` 1..8 to upright."""
        return Density(self.y, self.x, self.unit) if orientation >= 5 else self

    def times(self, x: Fraction, y: Fraction) -> "Density":
        """Return it for a picture with that many times the pixels on the same paper."""
        return Density(self.x * x, self.y * y, self.unit)

    def rounded(self) -> tuple[int, int]:
        """Return x and y as whole numbers of at least 1; without a unit, the smallest of their ratio."""
        if self.unit:
            return max(1, round(self.x)), max(1, round(self.y))
        ratio = self.x / self.y
        return ratio.numerator, ratio.denominator


def density_of(x: Any, y: Any, unit: str) -> Density | None:
    """Return the density that a file states; None if it says nothing or cannot be: zero, negative, no number."""
    try:
        across, down = _fraction(x), _fraction(y)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return None
    if across <= 0 or down <= 0 or (not unit and across == down):
        return None
    return Density(across, down, unit)


def _fraction(value: Any) -> Fraction:
    # Pillow's own numbers may have a denominator of 0, which Fraction takes from a Rational without a check.
    return (
        Fraction(int(value.numerator), int(value.denominator))
        if isinstance(value, Rational)
        else Fraction(value)
    )


def as_rational(value: Fraction) -> tuple[int, int]:
    """Return (numerator, denominator), each below 2**32, of the nearest such number above zero."""
    if max(value.numerator, value.denominator) < 2**32:
        return value.numerator, value.denominator
    if value >= 2**32 - 1:
        return 2**32 - 1, 1
    near = value.limit_denominator(max(1, int((2**32 - 1) / max(value, Fraction(1)))))
    return (near.numerator, near.denominator) if near else (1, 2**32 - 1)
