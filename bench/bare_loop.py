"""Run the bare loop that the pipeline is compared with: a process pool and nothing else.

    python -m bench.bare_loop SOURCE DEST --model sr-x2 --workers 2

Each process decodes, predicts, encodes and writes whole images with the same code and weights as the pipeline, one
torch thread each. No ledger, no names, no resume, no isolation. Prints the seconds since every process has its model
loaded.
"""

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path

_predictor = None


def start(model: str, barrier) -> None:
    global _predictor
    import torch

    import imgtx

    torch.set_num_threads(1)
    _predictor = imgtx.load(model)
    barrier.wait()


def work(paths: tuple[str, str]) -> None:
    from imgtx.codecs import Picture, decode, encode

    source, target = paths
    picture = decode(Path(source).read_bytes(), max_pixels=10**9)
    assert _predictor is not None
    output = _predictor(picture.pixels)
    data, _ = encode(
        Picture(output, None, picture.icc, picture.exif, picture.format, ()), picture.format, quality=92
    )
    Path(target).write_bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--model", default="sr-x2")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    options.destination.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in options.source.iterdir() if path.is_file())
    jobs = [(str(path), str(options.destination / path.name)) for path in files]
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(options.workers + 1)
    with context.Pool(options.workers, start, (options.model, barrier)) as pool:
        barrier.wait()
        started = time.perf_counter()
        for _ in pool.imap_unordered(work, jobs):
            pass
        seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "images": len(jobs)}))


if __name__ == "__main__":
    main()
