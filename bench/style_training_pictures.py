"""The pictures that style transfer is trained on and measured by, as folders.

    python -m bench.style_training_pictures DATA OUT

DATA has photos/train, photos/more and paintings. OUT/photos and OUT/paintings become what is trained on, OUT/held-out
one painting of each artist in HELD_OUT, of whom no painting is trained on: one is enough to know an artist by.
"""

import argparse
import json
import shutil
from pathlib import Path

# One painting of each, to measure by; none of an artist's circle.
HELD_OUT = {
    "munch": "munch_scream.jpg",
    "kandinsky": "kandinsky_composition_vii.jpg",
    "hokusai": "hokusai_great_wave.jpg",
    "seurat": "seurat_grande_jatte.jpg",
    "matisse": "matisse_woman_with_hat.jpg",
    "mondrian": "mondrian_1913.jpg",
    "turner": "turner_venice.jpg",
    "klimt": "more/pa_gustav_klimt_adele_bloch_bauer_s_portrait.webp",
    "vermeer": "vermeer_pearl_earring.jpg",
    "picabia": "picabia_udnie.jpg",
    "pissarro": "more/aic_81551.webp",
    "bruegel": "bruegel_harvesters.jpg",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    photos = [path for name in ("train", "more") for path in (options.data / "photos" / name).iterdir()]
    folder = options.data / "paintings"
    taught = [folder / name for name, artist in artists(folder).items() if not is_held_out(artist)]
    for name, files in (
        ("photos", photos),
        ("paintings", taught),
        ("held-out", [folder / name for name in HELD_OUT.values()]),
    ):
        target = options.out / name
        target.mkdir(parents=True)
        for path in files:
            if path.suffix != ".json":
                shutil.copy(path, target)
        print(f"{target}: {len(list(target.iterdir()))} pictures")


def artists(folder: Path) -> dict[str, str]:
    """Return the artist of each painting, by its path in the folder."""
    known = json.loads((folder / "attribution.json").read_text())
    more = json.loads((folder / "more" / "attribution.json").read_text())
    return {row["file"]: row["artist"] for row in known} | {
        f"more/{name}": row["artist"] for name, row in more.items()
    }


def is_held_out(artist: str) -> bool:
    return any(name in artist.lower() for name in HELD_OUT)


if __name__ == "__main__":
    main()
