"""What training never draws, so that a network can be tested on it. Frozen: a change makes old figures worthless."""

from imgtx.training.scenes.description import RELATIONS, Description, Group

# Colour and shape: two of each shape, every colour once or twice.
PAIRS = frozenset({
    ("red", "star"), ("orange", "heart"), ("yellow", "square"), ("green", "triangle"), ("cyan", "cross"),
    ("blue", "heart"), ("purple", "circle"), ("pink", "diamond"), ("brown", "ring"), ("black", "star"),
    ("white", "triangle"), ("gray", "cross"), ("green", "circle"), ("blue", "square"), ("yellow", "ring"),
    ("red", "diamond"),
})  # fmt: skip
# Count and shape.
COUNTS = frozenset({(2, "heart"), (3, "star"), (4, "square"), (5, "circle"), (3, "ring"), (2, "triangle")})
# The first shape, its relation, the second shape; the converse is held out too.
RELATED = frozenset({
    ("star", "above", "circle"), ("square", "left of", "triangle"), ("heart", "below", "square"),
    ("ring", "right of", "cross"), ("diamond", "above", "heart"), ("circle", "left of", "diamond"),
})  # fmt: skip
# Colour of a shape and of the background.
BACKGROUNDS = frozenset({
    ("red", "blue"), ("yellow", "green"), ("white", "purple"), ("blue", "yellow"), ("black", "pink"),
    ("green", "white"),
})  # fmt: skip


def held_out_of(description: Description) -> frozenset[str]:
    """Return which lists the description is on: of "pair", "count", "relation", "background"."""
    found = set()
    for group in description.groups:
        if (group.colour, group.shape) in PAIRS:
            found.add("pair")
        if (group.count, group.shape) in COUNTS:
            found.add("count")
        if (group.colour, description.background) in BACKGROUNDS:
            found.add("background")
    if description.relation:
        first, second = description.groups
        if _related(first, second, description.relation):
            found.add("relation")
    return frozenset(found)


def _related(first: Group, second: Group, relation: str) -> bool:
    told = (first.shape, relation, second.shape)
    return told in RELATED or (second.shape, RELATIONS[relation], first.shape) in RELATED
