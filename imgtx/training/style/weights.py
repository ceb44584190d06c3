"""How much each part of the loss of style transfer counts (StyleWeights), read without torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StyleWeights:
    """How much each part of the loss counts; the parts are of about the same size."""

    # Mean square difference to the content's activations, each channel normalised.
    content: float = 1.0
    # Difference to the style's means and standard deviations.
    moments: float = 1.5
    # Sliced Wasserstein distance to the style.
    sliced: float = 2.0
    # L1 where a content is a piece of its own style.
    identity: float = 5.0
    # Total variation, and ten times what is outside [0, 1].
    smooth: float = 0.5
    # Difference to the output for the moved content: without it the network paints the grid of its windows into
    # even areas, where it sees nothing else to paint (LOG.md).
    shift: float = 8.0
