"""Run the floor below which no pipeline gets: libvips decodes, doubles the pixels and encodes, in a process pool.

    python -m bench.vips_pool SOURCE DEST --workers 2

One libvips thread a process. A file is durable under its name before the next image, as in `bench.bare_loop`. PNG is
written at level 1, JPEG at quality 92.
"""

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path

from bench.bare_loop import write_durably


def work(paths: tuple[str, str]) -> float:
    """Process one image; returns the CPU seconds of it."""
    import pyvips

    began = time.process_time()
    source, target = paths
    image = pyvips.Image.new_from_file(source, access="sequential").resize(2, kernel="nearest")
    options = {"compression": 1} if target.endswith(".png") else {"Q": 92}
    write_durably(Path(target), image.write_to_buffer(Path(target).suffix, **options))
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    # libvips reads it when it is first loaded.
    os.environ["VIPS_CONCURRENCY"] = "1"
    options.destination.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in options.source.rglob("*") if path.suffix in (".png", ".jpg", ".webp"))
    jobs = [(str(path), str(options.destination / path.name)) for path in files]
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        cpu = sum(pool.imap_unordered(work, jobs))
    print(json.dumps({"cpu": cpu, "images": len(jobs)}))


if __name__ == "__main__":
    main()
