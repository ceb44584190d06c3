"""What a run is asked to do (RunSpec), what decides its pixels (Recipe), and both joined with the model's facts (Job).

Everything a person can get wrong is checked here, before Ray starts.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from imgtx.codecs import WRITABLE
from imgtx.errors import UsageError
from imgtx.models.info import ModelInfo, refusal_to_compile

# Raised whenever imgtx itself begins to compute other pixels from the same recipe.
PIXEL_VERSION = 1

PRECISIONS = ("float32", "bfloat16", "float16")
AUTO = "auto"  # the precision that the probe of the model found fastest and exact enough
TASKS = ("super-resolution", "restoration", "inpainting")  # that a command runs
SKIP, NO_HOLE = "skip", "no-hole"  # what to do with a picture that has no mask among the masks


@dataclass(frozen=True)
class RunSpec:
    """One invocation, as the person gave it. URIs are local paths, `s3://`, or anything fsspec opens.

    `workers` model actors share `gpus` GPUs; with `min_workers` there are so many at first, and up to `workers` as
    the cluster grows. `max_failed` is a share ("1%") or a count ("20"). `max_megapixels` bounds the input,
    `stream_megapixels` is the output size above which an image goes through local disk, tile by tile, not memory.
    Holes are white in a mask of the same key under `masks`, or painted in `mask_color` ("#ff00ff") give or take
    `mask_tolerance` levels of 255; a picture without a mask is left out (`missing_mask` "skip"), or has no hole
    ("no-hole"). With `compile` the model goes through torch.compile, where `imgtx models probe --compile` found that
    exact enough and faster. With `self_ensemble` it is asked eight times, and the mean is taken.
    """

    source: str
    destination: str
    task: str = "super-resolution"
    model: str = "sr-x2"
    scale: int | None = None
    format: str = "same"
    quality: int = 92
    precision: str = "float32"
    limit: int | None = None
    workers: int | None = None
    min_workers: int | None = None
    gpus: float | None = None
    max_failed: str = "1%"
    max_megapixels: float = 1000.0
    stream_megapixels: float = 50.0
    endpoint_url: str | None = None
    address: str | None = None
    masks: str | None = None
    missing_mask: str = SKIP
    mask_color: str | None = None
    mask_tolerance: int = 8
    compile: bool = False
    self_ensemble: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def failures_allowed(self, listed: int) -> int:
        """How many failed images this run forgives, of `listed`."""
        if self.max_failed.endswith("%"):
            return int(listed * float(self.max_failed[:-1]) / 100)
        return int(self.max_failed)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides an output's pixels; its digest stands in every ledger row.

    `precision` is what is computed in, never `auto`; `compiled` is another program, whose sums round otherwise: both
    are a person's choice, and changing one makes outputs anew. Tile size and halo are not in it: they move pixels by
    less than 1/255. Whether a picture is cut at all (`untiled` in the model's info) is, because for a model that looks
    at the whole picture that changes everything.
    """

    task: str
    model_digest: str
    scale: int
    format: str
    quality: int
    precision: str
    pixel_version: int = PIXEL_VERSION
    untiled: bool = False
    mask_color: str = ""
    compiled: bool = False
    self_ensemble: bool = False

    @property
    def digest(self) -> str:
        values = asdict(self)
        for name in ("untiled", "mask_color", "compiled", "self_ensemble"):
            if not values[name]:
                del values[name]  # as before the field was there: what it does not concern stays current
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Job:
    """A checked spec together with what its model says of itself; this is what travels to the workers."""

    spec: RunSpec
    info: ModelInfo
    recipe: Recipe


def make_job(spec: RunSpec, info: ModelInfo, model_digest: str) -> Job:
    """Check `spec` against the model it names; UsageError says what was given, what is legal, what to do."""
    check_spec(spec)
    if info.task not in TASKS:
        raise UsageError(
            f"--model {spec.model} is for {info.task}, which no command runs yet: this one does {spec.task}"
        )
    if info.task != spec.task:
        raise UsageError(
            f"--model {spec.model} is for {info.task}, this command does {spec.task}: imgtx "
            f"{'upscale' if info.task == TASKS[0] else 'restore'} runs it, and `imgtx models list` shows others"
        )
    if spec.scale is not None and spec.scale != info.scale:
        raise UsageError(
            f"--scale {spec.scale} contradicts --model {spec.model}, which enlarges x{info.scale}: leave one out"
        )
    precision = info.fast if spec.precision == AUTO else spec.precision
    if precision not in info.dtypes:
        raise UsageError(
            f"--precision {precision} was not measured for {spec.model}: it runs in {', '.join(info.dtypes)}"
        )
    _check_holes(spec, info)
    recipe = Recipe(
        spec.task,
        model_digest,
        info.scale,
        spec.format,
        spec.quality,
        precision,
        untiled=bool(info.untiled),
        mask_color=f"{spec.mask_color.lower()} {spec.mask_tolerance}" if spec.mask_color else "",
        compiled=spec.compile,
        self_ensemble=spec.self_ensemble,
    )
    if not spec.compile:
        info = replace(info, compiled_tile=0)  # how pictures are cut follows the choice too
    elif refusal := refusal_to_compile(info, spec.model, precision):
        raise UsageError(refusal)
    return Job(spec, info, recipe)


def _check_holes(spec: RunSpec, info: ModelInfo) -> None:
    """Holes are told in one way, and to a model that fills them."""
    if spec.masks and spec.mask_color:
        raise UsageError(
            f"--masks {spec.masks} and --mask-color {spec.mask_color}; legal is one of them: leave one out"
        )
    if info.masks and not (spec.masks or spec.mask_color):
        raise UsageError(
            f"--model {spec.model} fills holes: say where they are by --masks or --mask-color, or choose another model"
        )
    if not info.masks and (spec.masks or spec.mask_color):
        raise UsageError(
            f"--model {spec.model} fills no holes, which --masks and --mask-color are for: leave them out, or "
            f"choose a model for inpainting (imgtx models list)"
        )
    if spec.missing_mask not in (SKIP, NO_HOLE):
        raise UsageError(f"--missing-mask {spec.missing_mask}: legal are {SKIP} and {NO_HOLE}")
    if spec.mask_color:
        colour_of(spec.mask_color)
    if not 0 <= spec.mask_tolerance <= 255:
        raise UsageError(f"--set mask_tolerance={spec.mask_tolerance}: legal are 0 to 255")


def colour_of(text: str) -> tuple[int, int, int]:
    """Red, green and blue of "#rrggbb"; UsageError for anything else."""
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text) is None:
        raise UsageError(f"--mask-color {text}: legal is a colour like '#ff00ff', two digits each of 0-9a-f")
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue


def check_spec(spec: RunSpec) -> None:
    """The checks that need no model and no storage."""
    if spec.format not in ("same", *WRITABLE):
        raise UsageError(f"--format {spec.format}: legal are same, {', '.join(WRITABLE)}")
    if not 1 <= spec.quality <= 100:
        raise UsageError(f"--quality {spec.quality}: legal are 1 to 100")
    if spec.precision not in (*PRECISIONS, AUTO):
        raise UsageError(f"--precision {spec.precision}: legal are {', '.join(PRECISIONS)}, {AUTO}")
    for name in ("limit", "workers", "min_workers", "max_megapixels", "stream_megapixels"):
        value = getattr(spec, name)
        if value is not None and not value > 0:  # so that nan fails too
            option = name.endswith("workers") or name == "limit"
            given = f"--{name.replace('_', '-')} {value}" if option else f"--set {name}={value}"
            raise UsageError(f"{given}: give a number greater than 0")
    if spec.min_workers and not spec.min_workers <= (spec.workers or 0):
        most = f"--workers is {spec.workers}" if spec.workers else "--workers is not given"
        raise UsageError(f"--min-workers {spec.min_workers}: {most}; give --workers, the most, no smaller")
    if spec.gpus is not None and not spec.gpus >= 0:
        raise UsageError(f"--gpus {spec.gpus}: give 0 for none, or a number of GPUs")
    try:
        allowed = spec.failures_allowed(100)
    except (ValueError, OverflowError):
        allowed = -1
    if allowed < 0 or (allowed > 100 and spec.max_failed.endswith("%")):
        raise UsageError(f"--max-failed {spec.max_failed}: give a share such as 1% or a count such as 20")
