"""Measure the quality tables of docs/benchmarks.md: what `imgtx evaluate` finds, a result for each model and protocol.

    python -m bench.quality NAME ... --benchmarks FOLDER [--sets set5]

NAME is one of MEASURED, such as `sr-x2`; without one, all whose sets are in FOLDER are measured. FOLDER, or the
variable IMGTX_BENCHMARKS, has folders of clean images under the names of the sets (set5, set14, b100, kodak24, live1),
cbsd68.txt with the names of the images of b100 that are CBSD68, and held-out, paintings that no training saw. The style
protocol also needs its networks in the cache (`jobs.evaluation.style_measures`). All are measured in float32 on one
thread of the CPU. The numbers are the same every time, whatever else runs, so that one round is enough. --sets measures
a part for a trial, and saves nothing.
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report import save
from jobs.evaluation.datasets import LIST, find_datasets

FOLDER_VARIABLE = "IMGTX_BENCHMARKS"
# What these numbers depend on: a result is measured again when one of them has changed.
DEPENDS = (":/imgtx", ":/jobs/evaluation", ":/bench/quality.py", ":!*.md", ":!*.json")
PRECISION = "float32"
CLEAN_SETS = ("set5", "set14", "b100", "kodak24")
# The control of the super-resolution protocol, as its rows here name it.
BICUBIC = "bicubic"


@dataclass(frozen=True)
class Measurement:
    """One call of `imgtx evaluate`: by `protocol` or, of a model that enlarges, by `degradation`."""

    model: str
    sets: tuple[str, ...] = CLEAN_SETS
    protocol: str = ""
    degradation: str = "bicubic"
    self_ensemble: bool = False

    def missing(self, folder: Path) -> list[str]:
        """Return the sets that are not in the folder."""
        return [name for name in self.sets if not _path(folder, name).exists()]


SCALES = (2, 3, 4)
ARCHIVE_SCALES = (2, 4)
FITTED = ("munch", "hokusai", "kandinsky")
# Self-ensembles last: they take eight times as long.
MEASURED: dict[str, Measurement] = {
    **{f"sr-x{scale}": Measurement(f"sr-x{scale}") for scale in SCALES},
    **{
        f"{model}_archive": Measurement(model, degradation="archive")
        for scale in ARCHIVE_SCALES
        for model in (f"sr-x{scale}", f"sr-x{scale}-archive")
        # Its table shows no sr-x4 beside sr-x4-archive.
        if model != "sr-x4"
    },
    "restore_denoise": Measurement("restore", ("cbsd68",), "denoise"),
    "restore_jpeg": Measurement("restore", ("live1",), "jpeg"),
    "restore_no-harm": Measurement("restore", ("live1",), "no-harm"),
    "inpaint_holes": Measurement("inpaint", ("kodak24",), "holes"),
    **{f"sr-x{scale}_ensemble": Measurement(f"sr-x{scale}", self_ensemble=True) for scale in SCALES},
    "style": Measurement("style", ("kodak24", "held-out"), "style"),
    **{f"style-{name}": Measurement(f"style-{name}", ("kodak24", "held-out"), "style") for name in FITTED},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASURED)}")
    parser.add_argument("--benchmarks", type=Path, default=os.environ.get(FOLDER_VARIABLE))
    parser.add_argument("--sets", nargs="+", help="measure these sets only, and save nothing")
    options = parser.parse_args()
    if options.benchmarks is None:
        parser.error(f"no folder of benchmark sets was given: give --benchmarks or set {FOLDER_VARIABLE}")
    if unknown := [name for name in options.names if name not in MEASURED]:
        parser.error(f"{unknown[0]!r} is not measured: expected one of {', '.join(MEASURED)}")
    for name in options.names or [n for n, one in MEASURED.items() if not one.missing(options.benchmarks)]:
        found = measure(MEASURED[name], options.benchmarks, options.sets or MEASURED[name].sets)
        if not options.sets:
            # The folder is one of this machine.
            command = f"python -m bench.quality {name} --benchmarks FOLDER"
            save(result_name(name), {"command": command} | found)
        for row in found["rows"]:
            values = ", ".join(f"{key} {value:.2f}" for key, value in row["means"].items())
            print(f"{name}: {row['dataset']}, {row['condition']}, {row['method']}: {values}", flush=True)


def result_name(name: str) -> str:
    """Return the name of the JSON file of a measurement, without suffix."""
    return f"quality_{name}"


def measure(one: Measurement, folder: Path, sets: tuple[str, ...]) -> dict[str, Any]:
    """Return which weights were measured and how, and a row for each set, condition and method, with its means."""
    from imgtx.models.references import load_model
    from jobs.evaluation.protocol import run_protocol
    from jobs.evaluation.protocols import PROTOCOLS
    from jobs.evaluation.super_resolution import evaluate

    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    paths = [_path(folder, name) for name in sets]
    how: dict[str, Any] = {"self_ensemble": one.self_ensemble, "precision": PRECISION}
    if one.protocol:
        report = run_protocol(PROTOCOLS[one.protocol], one.model, find_datasets(paths), **how)
        text = report.text
        rows = [
            {"dataset": row.dataset, "condition": row.condition, "method": row.method, "images": row.images}
            | {"means": row.means}
            for row in report.rows
        ]
    else:
        report = evaluate(one.model, paths, degradation=one.degradation, **how)
        text = report.protocol
        rows = [*_enlarged(report)]
    network = load_model(one.model).network
    return {
        "model": report.model,
        "digest": report.digest,
        "parameters": sum(each.numel() for each in network.parameters()),
        "protocol": one.protocol or one.degradation,
        "text": text,
        "self_ensemble": report.self_ensemble,
        "precision": report.precision,
        "threads": report.threads,
        "rows": rows,
    }


def _enlarged(report: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of a report on super-resolution: of each set the model, then bicubic."""
    for dataset in report.datasets:
        for method, prefix in ((report.model, ""), (BICUBIC, "bicubic_")):
            means = {name: dataset.mean(prefix + name) for name in ("psnr_y", "ssim_y")}
            row = {"dataset": dataset.name, "condition": report.degradation, "method": method}
            yield row | {"images": len(dataset.images), "means": means}


def _path(folder: Path, name: str) -> Path:
    listed = folder / f"{name}{LIST}"
    return listed if listed.exists() else folder / name


if __name__ == "__main__":
    main()
