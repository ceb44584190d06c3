"""Run the resizer of img2dataset over a folder, in a process pool: decode, enlarge to 512 px, encode, write.

    OTHER/bin/python -m bench.img2dataset_pool SOURCE DEST --side 512 --workers 2

OTHER is an environment that has img2dataset, OpenCV and albumentations (`pip install --no-deps img2dataset`
is enough of the first: of it the resizer alone is imported), not that of imgtx. A file is durable under its name before
the next image, as in `bench.bare_loop`. PNG is written at level 1.
"""

import argparse
import importlib.util
import io
import json
import multiprocessing
import os
import time
from pathlib import Path

from bench.bare_loop import write_durably

_resizer = None


def start(side: int) -> None:
    global _resizer
    package = importlib.util.find_spec("img2dataset")
    assert package is not None
    assert package.origin is not None
    # Of the package itself every dependency would be imported.
    file = importlib.util.spec_from_file_location("resizer", Path(package.origin).with_name("resizer.py"))
    assert file is not None
    assert file.loader is not None
    module = importlib.util.module_from_spec(file)
    file.loader.exec_module(module)
    _resizer = module.Resizer(
        side,
        "keep_ratio",
        resize_only_if_bigger=False,
        upscale_interpolation="nearest",
        encode_format="png",
        encode_quality=1,
    )


def work(paths: tuple[str, str]) -> float:
    """Process one image; returns the CPU seconds of it."""
    assert _resizer is not None
    began = time.process_time()
    source, target = paths
    data, *_, error = _resizer(io.BytesIO(Path(source).read_bytes()))
    if error:
        raise SystemExit(f"{source}: {error}")
    write_durably(Path(target), data)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--side", type=int, default=512, help="of the shorter side, in pixels")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    options.destination.mkdir(parents=True, exist_ok=True)
    jobs = [
        (str(path), str(options.destination / path.name)) for path in sorted(options.source.glob("*.png"))
    ]
    with multiprocessing.get_context("spawn").Pool(options.workers, start, (options.side,)) as pool:
        cpu = sum(pool.imap_unordered(work, jobs))
    print(json.dumps({"cpu": cpu, "images": len(jobs)}))


if __name__ == "__main__":
    main()
