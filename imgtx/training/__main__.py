"""Train on a bare machine: with torch, numpy, Pillow, safetensors and this project's code, without Ray.

    python -m imgtx.training pack photos/train photos/valid photos.zip     # where imgtx is installed
    python -m imgtx.training train jobs/specs/sr-x2.toml photos.zip        # on the GPU machine

The weights and the log are those of `imgtx train`, and the same command continues where it stopped.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

import torch

from imgtx.errors import ImgtxError, LeaseHeldError, UsageError
from imgtx.inference.cores import usable_cores
from imgtx.inference.predictor import default_device
from imgtx.settings import parse_settings
from imgtx.training.data.crops import Sampler
from imgtx.training.data.device_feed import DeviceFeed
from imgtx.training.data.left_out import LeftOut
from imgtx.training.data.packed import TRAIN, VALID, pack, unpack
from imgtx.training.data.pairs import MIN_VALID_SIDE
from imgtx.training.feeds import Data, PrefetchingFeed, from_pairs
from imgtx.training.folder import held_folder
from imgtx.training.log import TrainingLog
from imgtx.training.loop import train
from imgtx.training.spec import TrainSpec, load_train_spec
from imgtx.training.threads import Threads

MEGABYTE = 1_000_000


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 2 wrong input, 3 training failed, 130 interrupted by the user."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        given.command(given)
    except (UsageError, LeaseHeldError) as error:
        return _stopped(str(error), 2)
    except ImgtxError as error:
        return _stopped(str(error), 3)
    except KeyboardInterrupt:
        return _stopped("interrupted; the same command continues", 130)
    return 0


def _stopped(message: str, code: int) -> int:
    print(f"imgtx.training: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m imgtx.training", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    packing = commands.add_parser("pack", help="put two folders of images into one file, losslessly")
    packing.set_defaults(command=_pack)
    packing.add_argument("train", type=Path)
    packing.add_argument("valid", type=Path)
    packing.add_argument("file", type=Path)
    packing.add_argument("--max-megabytes", type=float, metavar="N", help="leave images out of a larger file")
    packing.add_argument("--valid-images", type=int, default=10, help="use the first N by name (default: 10)")
    training = commands.add_parser("train", help="train on a packed file")
    training.set_defaults(command=_train)
    training.add_argument("spec", type=Path)
    training.add_argument("file", type=Path)
    training.add_argument("--folder", type=Path, help="folder for state and weights (default: runs/<name>)")
    training.add_argument("--device", help="torch device (default: cuda if there is one)")
    training.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    return parser


def _pack(given: argparse.Namespace) -> None:
    most = None if given.max_megabytes is None else int(given.max_megabytes * MEGABYTE)
    size = pack(given.train, given.valid, given.file, valid_images=given.valid_images, max_bytes=most)
    print(f"{given.file}: {size / MEGABYTE:.1f} MB")


def _train(given: argparse.Namespace) -> None:
    settings = parse_settings(given.settings)
    packed = {"train": str(given.file), "valid": str(given.file)}
    spec = load_train_spec(given.spec, settings | packed, folders=False)
    folder = given.folder or Path("runs") / spec.name
    device = given.device or default_device()
    with held_folder(folder), TrainingLog(folder, spec.loss) as record:

        def report(values: dict[str, Any]) -> None:
            record(values)
            print("  ".join(f"{name} {value}" for name, value in values.items()), flush=True)

        data = packed_data(spec, given.file, device)
        threads = Threads(usable_cores()) if torch.device(device).type == "cpu" else None
        print(train(spec, folder, report, data=data, device=device, threads=threads))


def packed_data(spec: TrainSpec, file: Path, device: str) -> Data:
    """Return the batches of a packed file: on a GPU cut there if possible, else prepared ahead by threads."""
    left_out = LeftOut()
    pairs = unpack(file, TRAIN, spec.scale, smallest=spec.crop, left_out=left_out)
    valid = unpack(
        file, VALID, spec.scale, smallest=MIN_VALID_SIDE, most=spec.valid_images, left_out=left_out
    )
    data = from_pairs(spec, pairs, valid, left_out)
    assert isinstance(data.feed, Sampler)
    if torch.device(device).type == "cpu":
        return data
    feed = DeviceFeed(data.feed, device) if DeviceFeed.fits(data.feed) else PrefetchingFeed(data.feed)
    return data._replace(feed=feed)


if __name__ == "__main__":
    sys.exit(main())
