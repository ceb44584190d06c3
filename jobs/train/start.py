"""What a training on Ray starts with: checked first, so that a refused start leaves nothing behind, then recorded.

STORAGE/<name>/spec.json       the spec of its last start; a resumed training may differ from it in little
STORAGE/<name>/keys.parquet    its images, which fix the order of epochs
STORAGE/<name>/begins-with/    the weights it began with, if any
"""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from imgtx.errors import UsageError
from imgtx.models.weight_file import find_weights
from imgtx.training.data.left_out import LeftOut
from imgtx.training.spec import TrainSpec, check_same
from jobs.train.images import (
    KEYS,
    TRAIN,
    VALID,
    Sources,
    check_training,
    decode_keys,
    encode_keys,
    list_training,
    list_valid,
    part_of,
)
from pipeline.models.resolve import local_model
from pipeline.storage.store import Store, open_store

log = logging.getLogger("imgtx.train")

SPEC = "spec.json"


@dataclass(frozen=True)
class Start:
    """What a training will begin or continue with. recorded: the spec of its last start, None if this is its first.

    images: columns `part` and `key`; None where the recorded ones stay. left_out: unusable ones of them.
    """

    sources: Sources
    recorded: dict[str, Any] | None
    images: pa.Table | None
    left_out: LeftOut


def prepare(spec: TrainSpec, root: Store, endpoint_url: str | None) -> Start:
    """Check a start of the training at `root` and list its images; write nothing.

    A training keeps its list of images, so that it sees the same crops again; `train` and `valid` are listed anew where
    the spec names other places, and where nothing is left of the list. Raises UsageError for a spec that is not the
    training's, for weights that are missing, and where no image can be used.
    """
    recorded = read_recorded(root)
    if recorded is not None:
        check_same(spec, recorded, root.describe())
    if spec.init_from and root.stat(first_weights(spec)) is None:
        find_weights(local_model(spec.init_from, endpoint_url))
    sources, left_out = places(spec, endpoint_url), LeftOut()
    before = decode_keys(root.read(KEYS)) if recorded is not None and root.stat(KEYS) is not None else None
    if before is not None and _same_images(spec, recorded or {}, endpoint_url):
        try:
            check_training(sources, part_of(before, TRAIN), spec)
            return Start(sources, recorded, None, left_out)
        except UsageError as error:
            log.warning("listing the images again: %s", error)
    training = list_training(sources, spec)
    check_training(sources, part_of(training, TRAIN), spec)
    listed = pa.concat_tables([training, list_valid(sources, spec, left_out)])
    return Start(sources, recorded, listed, left_out)


def record(start: Start, spec: TrainSpec, root: Store, endpoint_url: str | None) -> None:
    """Write what the training starts with. Only the holder of its lease may."""
    if start.images is not None:
        root.write(KEYS, encode_keys(start.images))
    if spec.init_from and root.stat(key := first_weights(spec)) is None:
        root.upload(key, str(find_weights(local_model(spec.init_from, endpoint_url))))
    # Last: a start that was killed before it lists the images again.
    root.write(SPEC, json.dumps(asdict(spec), indent=2).encode())


def read_recorded(root: Store) -> dict[str, Any] | None:
    """Return the spec of the last start, None before the first."""
    return json.loads(root.read(SPEC)) if root.stat(SPEC) is not None else None


def places(spec: TrainSpec, endpoint_url: str | None) -> Sources:
    return Sources(*(open_store(uri, endpoint_url=endpoint_url) for uri in (spec.train, spec.valid)))


def first_weights(spec: TrainSpec) -> str:
    """Return the key of the starting weights under a training's root: the driver's path means nothing elsewhere."""
    return f"begins-with/{Path(spec.init_from).stem}.safetensors"


def _same_images(spec: TrainSpec, recorded: dict[str, Any], endpoint_url: str | None) -> bool:
    """Return whether the spec names the places of the recorded one, and as many validation images."""
    names = (TRAIN, VALID)
    now, then = (
        [open_store(uri, endpoint_url=endpoint_url).uri.rstrip("/") for uri in uris]
        for uris in ([getattr(spec, name) for name in names], [recorded[name] for name in names])
    )
    return now == then and recorded.get("valid_images") == spec.valid_images
