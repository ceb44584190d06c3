"""Choose among the packaged weights that enlarge: by the kind of a picture, and by how much it is to grow.

Weights for clean pictures are sharper, and sharpen the blocks of a JPEG too. `bench/which_model.py` measures from which
quality on that costs more than it gains (docs/guides/which-model.md).
"""

# Instead of a model's name: chosen for each picture.
AUTO = "auto"
CLEAN, PHOTO = "clean", "photo"
KINDS = {
    CLEAN: "a lossless picture, or a JPEG or WebP of the best qualities",
    PHOTO: "any other JPEG or WebP, and what else is stored with losses: photos of phones and the web",
}
# Of a JPEG (`imgtx.codecs.Header.quality`), from which on it counts as clean.
CLEAN_QUALITY = 90

# The packaged models of each kind by their scale.
NETWORKS = {
    CLEAN: {2: "sr-x2", 3: "sr-x3", 4: "sr-x4"},
    PHOTO: {2: "sr-x2-archive", 4: "sr-x4-archive"},
}


def kind_of(quality: int) -> str:
    """Return the kind of a picture whose header states this quality: 100 for a lossless one."""
    return CLEAN if quality >= CLEAN_QUALITY else PHOTO


def network_for(kind: str, factor: float) -> tuple[str, int]:
    """Return name and scale of the packaged model of a kind that enlarges by `factor`, or by the next larger scale.

    Beyond the largest it is that one. Where the scale is larger, the result is reduced (`imresize`).
    """
    networks = NETWORKS[kind]
    scale = next((scale for scale in sorted(networks) if scale >= factor), max(networks))
    return networks[scale], scale
