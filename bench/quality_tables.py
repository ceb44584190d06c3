"""The quality tables of docs/benchmarks.md, from the results of `bench.quality` and what the papers printed.

What the papers printed is stored once, beside the protocols: in `jobs.evaluation.super_resolution.PUBLISHED` and in the
protocols of `jobs.evaluation.restoration`.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from bench.quality import BICUBIC, CLEAN_SETS, FITTED, MEASURED, SCALES, result_name
from bench.report import Line, origin, read, read_all
from imgtx.models.weight_file import file_digest, packaged_folder
from jobs.evaluation import inpainting, restoration, style_transfer
from jobs.evaluation.super_resolution import PUBLISHED

TITLES = {"set5": "Set5", "set14": "Set14", "b100": "B100", "kodak24": "Kodak24"}
PEER, PEER_PARAMETERS = "SwinIR-light", "0.9 M"
# Condition of a protocol: column.
RESTORED = {
    "denoise": {"sigma 15": "CBSD68 sigma 15", "sigma 25": "25", "sigma 50": "50"},
    "jpeg": {"quality 10": "LIVE1 JPEG 10", "quality 20": "20", "quality 40": "40"},
    "no-harm": {"quality 95": "95", "clean": "clean"},
}
RESTORERS = {
    restoration.INPUT: "input",
    restoration.NLM: "OpenCV fast NLM, given the strength",
    "restore": "**restore**",
}
RESTORERS_PUBLISHED = {"DnCNN": "DnCNN (published)", "SwinIR": "SwinIR, one model each (published)"}
FILLED = {"256 px thin": "thin", "256 px medium": "medium", "256 px thick": "thick"}
FILLERS = {
    "Telea (control)": "Telea",
    "Navier-Stokes (control)": "Navier-Stokes",
    "biharmonic (control)": "biharmonic",
    inpainting.FILL: "the smooth fill that inpaint starts from",
    "inpaint": "**inpaint**",
}
OPTIMISED = "optimisation (control)"
STYLISTS = {
    style_transfer.UNCHANGED: "unchanged",
    "Reinhard": "colour transfer, Reinhard",
    "optimal transport": "colour transfer, optimal transport",
    style_transfer.MAGENTA: style_transfer.MAGENTA,
    OPTIMISED: f"optimised pixels, {style_transfer.OPTIMISATION_STEPS} steps",
    "style": "style",
}


def super_resolution_table(folder: Path) -> list[Line]:
    """PSNR-Y of bicubic, our model, its self-ensemble and a published network, scale by scale."""
    lines: list[Line] = [("", "parameters", "s/MP", *TITLES.values(), "commit")]
    speed = {
        row["scale"]: row
        for found in read(folder, ("model_speed",))
        for row in found["seconds_per_megapixel"]
        if row["precision"] == "float32"
    }

    def seconds(scale: int, network: str) -> str:
        return f"{speed[scale][network]:.1f}" if network in speed.get(scale, {}) else ""

    for name, found in read_all(folder, [result_name(f"sr-x{scale}") for scale in SCALES]).items():
        model = found["model"]
        scale = int(model[-1])
        lines.append((f"x{scale} bicubic", "", "", *_enlarged(found, BICUBIC), origin(found)))
        label, *own = _bold([f"x{scale} {_label(found)}", *_enlarged(found, model)])
        size = f"{found['parameters'] / 1e6:.1f} M"
        lines.append((label, size, seconds(scale, model), *own, origin(found)))
        for views in read(folder, (f"{name}_ensemble",)):
            label = f"x{scale} {_label(views)} `--self-ensemble`"
            lines.append((label, "", "eight times", *_enlarged(views, model), origin(views)))
        printed = PUBLISHED[scale][PEER]
        values = (f"{printed[name]:.2f}" if name in printed else "" for name in CLEAN_SETS)
        lines.append((f"x{scale} {PEER} (published)", PEER_PARAMETERS, seconds(scale, PEER), *values, ""))
    return lines


def archive_table(folder: Path) -> list[Line]:
    """PSNR-Y on archive damage: bicubic, the weights for clean images at x2, those for archives."""
    lines: list[Line] = [("archive damage", *TITLES.values(), "commit")]
    names = [result_name(name) for name in MEASURED if name.endswith("_archive")]
    # Bicubic is in each result.
    shown: set[str] = set()
    for found in read_all(folder, names).values():
        model = found["model"]
        scale = model.removeprefix("sr-")[:2]
        if scale not in shown:
            lines.append((f"{scale} bicubic", *_enlarged(found, BICUBIC), origin(found)))
            shown.add(scale)
        own = model.endswith("-archive")
        values = [f"{scale} {_label(found, link=own)}", *_enlarged(found, model)]
        lines.append((*(_bold(values) if own else values), origin(found)))
    return lines


def restoration_table(folder: Path) -> list[Line]:
    """RGB PSNR of what comes in, a classical method, our model and published networks."""
    columns = [(name, condition) for name, titles in RESTORED.items() for condition in titles]
    lines: list[Line] = [("", *(RESTORED[name][condition] for name, condition in columns), "commit")]
    results = read_all(folder, [result_name(f"restore_{name}") for name in RESTORED])
    if not results:
        return lines
    stamps = "; ".join(dict.fromkeys(origin(found) for found in results.values()))
    for method, label in RESTORERS.items():
        values = [_psnr(results[result_name(f"restore_{name}")], at, method) for name, at in columns]
        own = method == "restore"
        older = _outdated(results.values()) if own else ""
        lines.append((label + older, *(_bold(values) if own else values), stamps))
    for method, label in RESTORERS_PUBLISHED.items():
        protocols = ((restoration.PROTOCOLS[name], at) for name, at in columns)
        printed = [protocol.published.get((protocol.datasets[0], at), {}) for protocol, at in protocols]
        lines.append((label, *(f"{row[method]:.2f}" if method in row else "" for row in printed), ""))
    return lines


def inpainting_table(folder: Path) -> list[Line]:
    """PSNR of the hole alone, by kind of hole."""
    lines: list[Line] = [("", *FILLED.values(), "commit")]
    for found in read(folder, (result_name("inpaint_holes"),)):
        for method, label in FILLERS.items():
            values = [_psnr(found, condition, method) for condition in FILLED]
            own = method == "inpaint"
            older = _outdated([found]) if own else ""
            lines.append((label + older, *(_bold(values) if own else values), origin(found)))
    return lines


def style_table(folder: Path) -> list[Line]:
    """Distance to the style, what is left of the content, and how often both are found."""
    lines: list[Line] = [("", "style", "SSIM", "style found", "content found", "commit")]
    for found in read(folder, (result_name("style"),)):
        rows = {row["method"]: row for row in found["rows"]}
        for method, label in STYLISTS.items():
            if method not in rows:
                continue
            row, means = rows[method], rows[method]["means"]
            if method == OPTIMISED:
                label = f"{label}, {row['images']} pairs"
            elif method == found["model"]:
                label = _label(found)
            shares = (f"{means[f'{what} found %']:.0f} %" for what in ("style", "content"))
            values = [label, f"{means['style %']:.1f} %", f"{means['ssim']:.2f}", *shares]
            lines.append((*(_bold(values) if method == "style" else values), origin(found)))
    return lines


def fitted_styles_table(folder: Path) -> list[Line]:
    """Distance to the style and SSIM of weights that were fitted to one painting, and of Magenta's network in it."""
    lines: list[Line] = [("", "style", "SSIM", "Magenta's style", "its SSIM", "commit")]
    for found in read_all(folder, [result_name(f"style-{name}") for name in FITTED]).values():
        rows = {row["method"]: row["means"] for row in found["rows"]}
        both = (rows.get(method) for method in (found["model"], style_transfer.MAGENTA))
        values = [
            value
            for means in both
            for value in ((f"{means['style %']:.1f} %", f"{means['ssim']:.2f}") if means else ("", ""))
        ]
        lines.append((_label(found, link=True), *values, origin(found)))
    return lines


def _enlarged(found: dict, method: str) -> list[str]:
    """Return the PSNR-Y of each set."""
    psnr = {row["dataset"]: row["means"]["psnr_y"] for row in found["rows"] if row["method"] == method}
    return [f"{psnr[name]:.2f}" for name in CLEAN_SETS]


def _psnr(found: dict, condition: str, method: str) -> str:
    """Return the PSNR of a method under a condition; empty where it was not measured."""
    place = {"condition": condition, "method": method}
    rows = (row for row in found["rows"] if row.items() >= place.items())
    return next((f"{row['means']['psnr']:.2f}" for row in rows), "")


def _bold(values: Sequence[str]) -> list[str]:
    return [f"**{value}**" if value else "" for value in values]


def _label(found: dict, *, link: bool = False) -> str:
    """Return the name of the measured weights, and that they are not those of today where this is so."""
    name = found["model"]
    return (f"[{name}](../imgtx/packaged/{name}.md)" if link else name) + _outdated([found])


def _outdated(results: Iterable[dict]) -> str:
    older = any(found["digest"] != _digest(found["model"]) for found in results)
    return ", earlier weights" if older else ""


@cache
def _digest(model: str) -> str:
    return file_digest(packaged_folder() / f"{model}.safetensors")
