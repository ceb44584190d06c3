"""How much each part of the loss of style transfer counts, read without torch."""

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


@dataclass(frozen=True)
class TeacherWeights:
    """How much each part of the loss counts where a teacher is learnt from."""

    # L1 to the teacher's picture.
    pixels: float = 1.0
    # L1 of the differences of neighbouring pixels.
    edges: float = 1.0
    # L1 where both are averaged over squares of 16 px, chroma four times: light and colours, no strokes.
    low: float = 0.0
    # Mean square difference of activations to those of the teacher's picture.
    seen: float = 0.15
    # Difference of their means and standard deviations.
    look: float = 0.6
    # Difference to the output for the moved content, as above.
    shift: float = 4.0
    # Mean square difference of the style's code to the teacher's numbers.
    numbers: float = 0.3
    # As in `StyleWeights`: the content's structure, and the style itself instead of the teacher's picture.
    content: float = 0.0
    moments: float = 0.0
    sliced: float = 0.0
    # Sliced Wasserstein distance of the pixels' colours to the style's.
    colours: float = 0.0

    @property
    def see_styles(self) -> bool:
        """Whether the style itself counts."""
        return bool(self.content or self.moments or self.sliced)
