"""From clean to damaged images: one file per kind.

A new kind is a file that defines a `Degradation`, and its line below. `sharpness` and `dead_leaves` change or make the
clean side for every degradation.
"""

from imgtx.degradations.archive import ARCHIVE
from imgtx.degradations.base import Degradation
from imgtx.degradations.bicubic import BICUBIC
from imgtx.degradations.holes import HOLES
from imgtx.degradations.restoration import RESTORATION

DEGRADATIONS: dict[str, Degradation] = {kind.name: kind for kind in (BICUBIC, ARCHIVE, RESTORATION, HOLES)}
