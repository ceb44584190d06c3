"""Measure the peak memory of every process of a run that upscales a 12,000 x 9,000 image x2.

    python -m bench.memory [--model sr-x2] [--tiles 64] [--width 12000 --height 9000] [--engine local]

The archive has the large JPEG and a few ordinary ones. Every 0.2 s the kernel reports the memory of each process of the
run: the resident set (RSS, which counts against the limit and includes shared pages in full), the proportional set
(PSS: shared pages divided among the processes that map them) and the unique set (USS: pages of this process alone).
The sum of all processes is the peak of their PSS together.
sr-x2 takes about 15 minutes. With `--tiles N` each process computes the first N tiles of every size and fills the
others with doubled pixels: by then every buffer of the network has its size, and what reads, spools and encodes is the
same.
`--model smallest` runs the smallest possible network, with the packaged halo and tiles.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from PIL import Image

from bench.models import smallest_model
from bench.photos import photo_archive
from bench.report import save

LIMIT_MB = 2000
# Python imports it as `sitecustomize` when it starts, in every process of the run: the network's class is changed where
# its module is imported.
FIRST_TILES = """
import importlib.util
import sys

left = dict()


def change(network):
    whole = network.forward

    def forward(self, image):
        left[image.shape] = left.get(image.shape, {tiles}) - 1
        if left[image.shape] >= 0:
            return whole(self, image)
        import torch

        return torch.nn.functional.interpolate(image, scale_factor=2.0)

    network.forward = forward


class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "imgtx.models.transformer":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            change(module.EncoderDecoder)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
"""
ORDINARY_SIDES = (640, 1024)


@dataclass
class Peak:
    """The peak of any process of one kind, in MB; the three may be from different times."""

    rss: float = 0.0
    pss: float = 0.0
    uss: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sr-x2")
    parser.add_argument("--tiles", type=int, default=0, help="tiles that the model computes; 0 for all")
    parser.add_argument("--width", type=int, default=12_000)
    parser.add_argument("--height", type=int, default=9_000)
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imgtx-bench-") as name:
        folder = Path(name)
        photo_archive(folder / "in", 2.0, sides=ORDINARY_SIDES)
        large_photo(folder / "in" / "large.jpg", options.width, options.height)
        model = options.model
        if model == "smallest":
            model = smallest_model(folder / "smallest.safetensors")
        command = [
            sys.executable,
            "-m",
            "jobs.cli",
            "upscale",
            str(folder / "in"),
            str(folder / "out"),
            "--model",
            model,
            "--engine",
            options.engine,
        ]
        started = time.perf_counter()
        peaks, together = watch(subprocess.Popen(command, env=environment_of(options.tiles, folder)))
        seconds = time.perf_counter() - started
        assert (folder / "out" / "images" / "large.jpg").stat().st_size
    values = {
        "image": [options.width, options.height],
        "model": options.model,
        "computed_tiles": options.tiles or "all",
        "engine": options.engine,
        "seconds": round(seconds, 1),
        "peak_mb": {
            kind: {name: round(mb) for name, mb in asdict(peak).items()}
            for kind, peak in sorted(peaks.items(), key=lambda item: -item[1].rss)
        },
        "sum_pss_mb": round(together),
        "limit_mb": LIMIT_MB,
    }
    save(f"memory_{options.engine}", values)
    print("   RSS    PSS    USS  (MB)")
    for kind, mb in values["peak_mb"].items():
        print(f"{mb['rss']:6} {mb['pss']:6} {mb['uss']:6}  {kind}")
    largest = max(peak.rss for peak in peaks.values())
    print(f"the largest process took {largest:.0f} MB (limit: {LIMIT_MB}), all together {together:.0f} MB")


def environment_of(tiles: int, folder: Path) -> dict[str, str]:
    """Return the environment of a run that computes the first `tiles` tiles of every size; all, if 0."""
    if not tiles:
        return dict(os.environ)
    (folder / "sitecustomize.py").write_text(FIRST_TILES.format(tiles=tiles))
    paths = [str(folder), *(path for path in sys.path if path)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def large_photo(path: Path, width: int, height: int) -> None:
    import skimage.data

    photo = Image.fromarray(skimage.data.astronaut())
    photo.resize((width, height), Image.Resampling.BICUBIC).save(path, quality=90)


def watch(process: subprocess.Popen) -> tuple[dict[str, Peak], float]:
    """Return, once `process` has ended, the peaks by kind of process, and that of the PSS of all together, in MB.

    SystemExit if it failed.
    """
    peaks: dict[str, Peak] = {}
    together = 0.0
    root = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            family = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        now = 0.0
        for member in family:
            try:
                kind, (rss, pss, uss) = kind_of(member), occupied(member.pid)
            except (psutil.NoSuchProcess, psutil.ZombieProcess, OSError):
                # It ended between being listed and being asked.
                continue
            peak = peaks.setdefault(kind, Peak())
            now += pss
            peak.rss, peak.pss, peak.uss = max(rss, peak.rss), max(pss, peak.pss), max(uss, peak.uss)
        together = max(together, now)
        time.sleep(0.2)
    if process.wait():
        raise SystemExit(f"the run ended with exit code {process.returncode}")
    return peaks, together


def occupied(pid: int) -> tuple[float, float, float]:
    """Return RSS, PSS and USS of a process in MB."""
    kib: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, amount = line.split(":")
        kib[name] = int(amount.split()[0])
    unique = kib["Private_Clean"] + kib["Private_Dirty"]
    rss, pss, uss = (value * 1024 / 1e6 for value in (kib["Rss"], kib["Pss"], unique))
    return rss, pss, uss


def kind_of(process: psutil.Process) -> str:
    """Return the kind of a process, such as `ray::MapBatches(Transform)`, else the program's name."""
    words = process.cmdline() or [process.name()]
    title = words[0].strip()
    if "pipeline.engines.fork_server" in words:
        return "local worker"
    if not title.startswith("ray::"):
        return Path(title).name or process.name()
    if "(" not in title:
        return title.split(".")[0]
    return title.split(").")[0].replace("MapWorker(", "").rstrip(")") + ")"


if __name__ == "__main__":
    main()
