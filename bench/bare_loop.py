"""Run the bare loop that the pipeline is compared with: a process pool and nothing else.

    python -m bench.bare_loop SOURCE DEST --model sr-x2 --workers 2

Each process decodes, predicts, encodes and writes whole images with the same code and weights as the pipeline, one
torch thread each; a file is durable under its name before the next image. No ledger, no names, no resume, no isolation.
Prints the wall seconds, and the CPU seconds of its processes, since every process has its model loaded.
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


def work(paths: tuple[str, str]) -> float:
    """Process one image; returns the CPU seconds of it."""
    from imgtx.codecs import Picture, decode, encode

    began = time.process_time()
    source, target = paths
    picture = decode(Path(source).read_bytes(), max_pixels=10**9)
    assert _predictor is not None
    output = _predictor(picture.pixels)
    data, _ = encode(
        Picture(output, None, picture.icc, picture.exif, picture.format, ()), picture.format, quality=92
    )
    write_durably(Path(target), data)
    return time.process_time() - began


def write_durably(path: Path, data: bytes | memoryview) -> None:
    """Write the file whole or not at all."""
    half = path.with_name(f".{path.name}.half")
    with half.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    half.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--model", default="sr-x2")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    options.destination.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in options.source.rglob("*") if path.suffix in (".png", ".jpg", ".webp"))
    jobs = [(str(path), str(options.destination / path.name)) for path in files]
    workers = min(options.workers, len(jobs))
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(workers + 1)
    with context.Pool(workers, start, (options.model, barrier)) as pool:
        barrier.wait()
        started = time.perf_counter()
        cpu = sum(pool.imap_unordered(work, jobs))
        seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "cpu": cpu, "images": len(jobs)}))


if __name__ == "__main__":
    main()
