"""Run what Ray's documentation shows for a model over images: `read_images`, `map_batches`, `write_images`.

    python -m bench.naive_ray SOURCE DEST --model sr-x2

The model is called on whole images, as in a library. One core is left to Ray Data for reading and writing.
`write_images` writes PNG as Pillow does by default. No ledger, no fsync, no names of the sources, no resume.
"""

import argparse
import os

import numpy as np
import ray
import ray.data


class Upscaler:
    def __init__(self, model: str):
        import torch

        import imgtx

        torch.set_num_threads(1)
        self.predictor = imgtx.load(model)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"image": np.stack([self.predictor(image) for image in batch["image"]])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("destination")
    parser.add_argument("--model", default="sr-x2")
    options = parser.parse_args()
    images = ray.data.read_images(options.source, mode="RGB")
    upscaled = images.map_batches(
        Upscaler,
        fn_constructor_kwargs={"model": options.model},
        concurrency=max(1, (os.cpu_count() or 1) - 1),
        batch_size=16,
    )
    upscaled.write_images(options.destination, column="image")


if __name__ == "__main__":
    main()
