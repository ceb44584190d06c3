"""`imgtx models show` and `imgtx models probe`: what a model says of itself, and what is measured of it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import imgtx
from imgtx.codecs import decode
from imgtx.errors import UsageError
from imgtx.models.adapters.base import Source
from imgtx.models.info import ModelInfo
from imgtx.models.references import OWN, absolute, adapter_of, digest_of, find_source, load_model, read_info
from imgtx.models.sidecar import read_record, write_sidecar
from imgtx.models.weight_file import count_parameters
from jobs.evaluation.datasets import find_datasets
from pipeline.cluster.environment import WORKER_ENVIRONMENT

EXAMPLES = Path(imgtx.__file__).parents[1] / "examples"
MAX_PHOTOS = 2
# Pixels: smaller photos are skipped.
MIN_SIDE = 336
# Pixels: larger photos are cropped to a corner, so that a probe ends.
MAX_SIDE = 400


# Of upscalers of diffusers.
NOT_PROBED = "the model draws noise, so that no halo makes its tiles agree, and they are blended"


@dataclass(frozen=True)
class Probed:
    """What `probe_model` found and where it was written; `sidecar` is None for imgtx's own weights."""

    source: Source
    info: ModelInfo
    measured: dict[str, Any]
    sidecar: Path | None


def describe(reference: str) -> dict[str, Any]:
    """Return everything that is known of a model, for JSON: what it says and what was measured of it."""
    source = find_source(reference)
    if source.kind == OWN:
        info, digest = read_info(reference)
        of_model = {"architecture": "imgtx", "parameters": count_parameters(source.path)}
        of_model["size_rules"] = {"minimum": 0, "multiple_of": info.multiple, "square": False}
        own = {"kind": source.kind, "digest": digest} | info.to_dict() | {"model": of_model}
        record = read_record(source.path, digest)
        return own if record is None else own | {"probe": record["probe"]}
    digest = digest_of(source)
    record = read_record(source.path, digest)
    known: dict[str, Any] = {"kind": source.kind, "digest": digest}
    if record is not None:
        probe = dict(record["probe"])
        return known | record["info"] | {"model": probe.pop("model", {}), "probe": probe}
    hint = f"never probed; imgtx models probe '{reference}' measures"
    if facts := adapter_of(source).facts:
        info, of_files = facts(source)
        hint = f"none: {NOT_PROBED}" if info.blended else hint + " seconds, memory and the largest batch"
        return known | info.to_dict() | {"model": of_files, "probe": hint}
    model: Any = load_model(reference)
    hint += " halo, precisions, speed and memory"
    return known | model.info.to_dict() | {"model": model.record, "probe": hint}


@dataclass(frozen=True)
class ProbeOptions:
    """The options of a probe; None means imgtx's examples, and the GPU if there is one."""

    photos: Path | None = None
    device: str | None = None
    levels: float = 1.0
    compile: bool = False
    compile_limit: float = 900.0

    def check(self) -> None:
        if not 0 < self.levels <= 255:
            raise UsageError(
                f"--levels {self.levels}: give a number of levels of 255, above 0; 1 is imgtx's own promise"
            )
        if not 0 < self.compile_limit < 1e6:
            raise UsageError(f"--compile-limit {self.compile_limit}: give a number of seconds, above 0")


def probe_model(reference: str, options: ProbeOptions) -> Probed:
    """Measure a model and leave the answers beside it, where runs find them.

    Raises UsageError for photos that do not serve or a folder that cannot be written, before anything is measured
    where that is known.
    """
    options.check()
    source = find_source(reference)
    if read_info(reference)[0].blended:
        raise UsageError(f"{reference} is not probed: {NOT_PROBED}; run it as it is")
    if read_info(reference)[0].generation:
        return _probe_generation(reference, options)
    photos = read_photos(options.photos or EXAMPLES)
    digest = digest_of(source)
    # This imports torch.
    from imgtx.inference.predictor import default_device
    from imgtx.probing.probe import probe

    device = options.device or default_device()
    if options.compile:
        from imgtx.inference.compiled import check_compiler

        check_compiler(device)
    model: Any = load_model(reference)
    found = probe(model, photos, device=device, levels=options.levels)
    info, measured = found.info, found.measured | {"model": getattr(model, "record", {})}
    if options.compile:
        info, measured["compiled"] = _compiled(reference, model, info, photos[0], options)
    if source.kind == OWN and not options.compile:
        return Probed(source, info, measured, None)
    return Probed(source, info, measured, write_sidecar(source.path, digest, info, measured))


def _probe_generation(reference: str, options: ProbeOptions) -> Probed:
    """Measure a model that makes images from text: it needs no photos."""
    from imgtx.inference.predictor import default_device
    from imgtx.probing.generating import probe_generation

    if options.compile:
        raise UsageError(f"--compile is not for {reference}, which makes images from text: leave it out")
    source = find_source(reference)
    model: Any = load_model(reference)
    with Console(stderr=True).status("") as line:
        found = probe_generation(model, device=options.device or default_device(), report=line.update)
    measured = found.measured | {"model": getattr(model, "record", {})}
    if source.kind == OWN:
        return Probed(source, found.info, measured, None)
    return Probed(
        source, found.info, measured, write_sidecar(source.path, model.digest, found.info, measured)
    )


def _compiled(
    reference: str, model: Any, info: ModelInfo, photo: np.ndarray, options: ProbeOptions
) -> tuple[ModelInfo, dict[str, Any]]:
    """Return the info with the choice in it, and what was measured; where nothing can be tried, why."""
    from imgtx.inference.compiled import why_not
    from imgtx.probing.compile_trial import Trial, judged, measure, side_to_compile
    from imgtx.probing.probe import sample_of

    model.info = info
    if why := why_not(model):
        return judged(info, {"fails": why}), {"fails": why}
    side = side_to_compile(info)
    device = next((str(p.device) for p in model.parameters()), "cpu")
    trial = Trial(absolute(reference), replace(info, compiled_tile=side), device, options.compile_limit)
    with Console(stderr=True).status("") as line:

        def watch(seconds: float) -> None:
            line.update(f"compiling for tiles of {side} px: {seconds:.0f} s of at most {trial.limit:g}")

        found = measure(trial, sample_of(photo, info, side), WORKER_ENVIRONMENT, watch)
    return judged(info, found), found


def read_photos(folder: Path) -> list[np.ndarray]:
    """Read the first photos by name that are RGB and large enough: uint8 (H, W, 3)."""
    pictures = []
    if not folder.is_dir():
        raise UsageError(
            f"no photos at {folder}: give --photos a folder of RGB photos of {MIN_SIDE} px or more"
        )
    for path in (path for dataset in find_datasets([folder]) for path in dataset.files):
        pixels = decode(path.read_bytes(), max_pixels=100_000_000).pixels
        pixels = pixels[:MAX_SIDE, :MAX_SIDE]
        if pixels.dtype == np.uint8 and pixels.shape[2] == 3 and min(pixels.shape[:2]) >= MIN_SIDE:
            pictures.append(pixels)
        if len(pictures) == MAX_PHOTOS:
            return pictures
    if not pictures:
        raise UsageError(f"no photo in {folder} is RGB of 8 bits and {MIN_SIDE} px or more a side: add one")
    return pictures


def print_probe(found: Probed, console: Console) -> None:
    """Print the answers in the order in which users ask."""
    info, measured = found.info, found.measured
    if info.generation:
        _print_generation(found, console)
        return
    seams = measured["seams"]
    table = Table("what", "measured", title=f"{info.name} on {measured['device']}", title_justify="left")
    if seams["within"]:
        table.add_row(
            "halo", f"{info.halo} px on a grid of {info.multiple}: {seams['levels']} of 255 at the seams"
        )
    else:
        table.add_row("tiles", f"none; the closest, halo {info.halo}, differed by {seams['levels']} of 255")
        table.add_row("why", measured["not_tileable_because"])
        table.add_row(
            "so", f"images run whole, up to {info.untiled / 1e6:.2f} megapixels; --levels accepts seams"
        )
    for name, run in measured["precisions"].items():
        table.add_row(name, run.get("fails") or _format_precision(run))
    table.add_row("--precision auto", f"{info.fast}{', channels-last' if info.channels_last else ''}")
    calls = ", ".join(f"{side}: {mb} MB" for side, mb in measured["memory_mb"].items())
    table.add_row("memory of one call", f"{calls}; {measured['memory_mb_per_megapixel']} MB a megapixel")
    largest = measured["largest_tile"]
    table.add_row("largest tile", f"{largest['side']} px ({largest['by']})")
    off = measured["batch_difference_levels"]
    table.add_row("batches", "one image a call" if off is None else f"{off} of 255 off single images")
    table.add_row("repeats exactly", "yes" if measured["repeats_exactly"] else "no")
    if "compiled" in measured:
        table.add_row("--compile", info.not_compiled or _format_compiled(measured["compiled"]))
    console.print(table)
    where = found.sidecar or "nowhere: imgtx's own weights carry their facts inside (but --compile's)"
    console.print(f"written to {where}", soft_wrap=True)


def _print_generation(found: Probed, console: Console) -> None:
    info, measured, model = found.info, found.measured, found.measured["model"]
    table = Table("what", "measured", title=f"{info.name} on {measured['device']}", title_justify="left")
    if "architecture" in model:
        table.add_row("pipeline", f"{model['architecture']}, {model['parameters'] / 1e6:,.1f} M parameters")
    width, height = measured["size"]
    table.add_row("an image", f"{width} x {height} px in {measured['steps']} steps")
    for name, run in measured["precisions"].items():
        table.add_row(name, run.get("fails") or _format_image(run))
    table.add_row("--precision auto", info.fast)
    largest = measured["largest_batch"]
    table.add_row("largest batch", f"{largest['images']} images a call ({largest['by']})")
    off = measured["batch_difference_levels"]
    alone = "" if info.batches else ": so it gets one image a call"
    table.add_row("batches", f"{off} of 255 off single images{alone}")
    table.add_row("repeats exactly", "yes" if measured["repeats_exactly"] else "no")
    console.print(table)
    console.print(f"written to {found.sidecar or 'nowhere'}", soft_wrap=True)


def _format_image(run: dict[str, Any]) -> str:
    memory = (
        "unknown memory" if run["memory_mb"] is None else f"{run['memory_mb']:,.0f} MB beside the weights"
    )
    return f"{run['seconds_per_image']} s an image, {run['seconds_per_step']} s a step, {memory}"


def _format_compiled(found: dict[str, Any]) -> str:
    return (
        f"{found['seconds_per_megapixel']} s a megapixel instead of {found['eager_seconds_per_megapixel']}, in tiles "
        f"of {found['tile']} px, after {found['compile_work_seconds']} s of work ({found['again_seconds']} where it is "
        f"done): pays from {found['pays_from_megapixels']} megapixels an actor on; {found['levels']} of 255 off"
    )


def _format_precision(run: dict[str, Any]) -> str:
    """Return one precision in one line."""
    last = run.get("channels_last_seconds_per_megapixel")
    layout = "" if last is None else f", channels-last {last}"
    loss = f"; {run['db']} dB against float32" if "db" in run else ""
    return f"{run['seconds_per_megapixel']} s a megapixel{layout}{loss}"
