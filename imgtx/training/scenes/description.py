"""What a scene is said to be: shapes with colours, their number, size, position, relation, and the background."""

from dataclasses import dataclass

# Colours by name, as levels of 255.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (250, 220, 50),
    "green": (50, 160, 70),
    "cyan": (60, 205, 210),
    "blue": (40, 90, 220),
    "purple": (130, 60, 180),
    "pink": (245, 135, 185),
    "brown": (130, 80, 40),
    "black": (25, 25, 25),
    "white": (245, 245, 245),
    "gray": (140, 140, 140),
}
SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross", "ring", "heart")
SIZES = ("small", "large")
# Rows from the top, columns from the left: 0 to 2.
POSITIONS: dict[str, tuple[int, int]] = {
    "top left": (0, 0),
    "top": (0, 1),
    "top right": (0, 2),
    "left": (1, 0),
    "center": (1, 1),
    "right": (1, 2),
    "bottom left": (2, 0),
    "bottom": (2, 1),
    "bottom right": (2, 2),
}
# Each with its converse.
RELATIONS = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}
COUNTS = (1, 2, 3, 4, 5)
# Two colours this near, as a distance of levels, are not put beside each other.
NEAR_COLOURS = 100.0


@dataclass(frozen=True)
class Group:
    """`count` shapes of one kind and colour. `size` is "" where nothing is said of it."""

    colour: str
    shape: str
    count: int = 1
    size: str = ""


@dataclass(frozen=True)
class Description:
    """One or two groups. "" is what is not said.

    `position` is that of the first group, which is then one shape alone. `relation` is that of the first to the
    second, each one shape.
    """

    groups: tuple[Group, ...]
    position: str = ""
    relation: str = ""
    background: str = ""


def far_apart(one: str, other: str) -> bool:
    """Return whether two colours, by name, may be put beside each other."""
    squares = sum((a - b) ** 2 for a, b in zip(COLOURS[one], COLOURS[other], strict=True))
    return squares >= NEAR_COLOURS**2
