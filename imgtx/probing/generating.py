"""Measure a model that makes images from text: seconds and memory of an image, precisions, and the largest batch.

All at the size and steps that the model takes unasked. A step's seconds are read off two short runs, so that a probe
does not wait for whole images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from imgtx.errors import ImageError, ModelError, first_line
from imgtx.imageops.canvas import start_canvas
from imgtx.inference.generator import Generator
from imgtx.inference.processor import this_processor
from imgtx.inference.tiling import plan_for_model, split
from imgtx.models.contract import ImageModel
from imgtx.models.generation import Generation, request
from imgtx.probing.precisions import clock
from imgtx.probing.probe import Probe, device_name, memory_during, memory_for_one_core

# Of different lengths, because a prompt must not matter to its neighbours.
PROMPTS = (
    "a lighthouse",
    "a red bicycle that leans against a white wall in the evening sun, with its shadow",
    "two cats",
)
# Steps of the two short runs.
SHORT, LONGER = 2, 4
# Images in a call beyond which more gain nothing.
MOST = 64


def probe_generation(
    model: ImageModel, *, device: str = "cpu", report: Callable[[str], None] = lambda line: None
) -> Probe:
    """Measure `model`, which is moved to `device`. report: is called with a few words before each measurement.

    Raises ModelError where it makes no image in any precision.
    """
    info = model.info
    offer = Generation.of(info)
    precisions: dict[str, dict[str, Any]] = {}
    for precision in info.dtypes:
        if refusal := this_processor().refusal(precision) if torch.device(device).type == "cpu" else "":
            precisions[precision] = {"fails": refusal}
            continue
        report(f"an image of {offer.width} x {offer.height} in {precision}")
        try:
            precisions[precision] = _measure(Generator(model, device=device, precision=precision, batch=1))
        except (RuntimeError, ImageError) as error:
            precisions[precision] = {"fails": first_line(error)}
    runs = tuple(name for name, found in precisions.items() if "fails" not in found)
    if not runs:
        raise ModelError(f"{info.name} made no image on {device}: {precisions['float32']['fails']}")
    fast = info.fast if info.fast in runs else runs[0]
    report("a batch beside its images one by one")
    # The first precision is the most exact: elsewhere rounding hides what a batch does.
    difference, steady = _batch_difference(model, device, runs[0])
    report("how many images fit")
    largest = _largest_batch(model, device, fast, precisions[fast]["memory_mb"])
    batches = difference <= 1
    offer = replace(offer, batch=largest["images"] if batches else 1)
    return Probe(
        replace(info, dtypes=runs, fast=fast, batches=batches, generation=asdict(offer)),
        {
            "device": device_name(device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "size": [offer.width, offer.height],
            "steps": offer.steps,
            "precisions": precisions,
            "batch_difference_levels": difference,
            "repeats_exactly": steady,
            "largest_batch": largest,
        },
    )


def _measure(generator: Generator) -> dict[str, Any]:
    """Return seconds and memory of one image; RuntimeError where it is not finite."""
    offer = Generation.of(generator.info)
    times: dict[int, float] = {}
    make(generator, PROMPTS[:1], SHORT)
    for steps in (SHORT, LONGER):
        times[steps] = clock(partial(make, generator, PROMPTS[:1], steps), generator.device)
    step = max(0.0, (times[LONGER] - times[SHORT]) / (LONGER - SHORT))
    beside = max(0.0, times[SHORT] - SHORT * step)
    memory = memory_during(lambda: make(generator, PROMPTS[:1], SHORT), generator.device)
    return {
        "seconds_per_image": round(beside + offer.steps * step, 2),
        "seconds_per_step": round(step, 3),
        "memory_mb": memory,
    }


def make(generator: Generator, prompts: Sequence[str], steps: int) -> list[np.ndarray]:
    """Make an image of each prompt, its number being its seed, in as few calls as the generator's batch allows."""
    stacks, rows = [], []
    for seed, prompt in enumerate(prompts):
        wanted = request({"prompt": prompt, "seed": seed, "steps": steps}, generator.info)
        cut = plan_for_model(generator.info, wanted.height, wanted.width)
        stacks.append((cut, split(start_canvas(None, wanted.height, wanted.width), cut)))
        rows.append(wanted.conditions)
    return generator.run(stacks, rows)


def _batch_difference(model: ImageModel, device: str, precision: str) -> tuple[int, bool]:
    """Return by how many levels of 255 images of a batch differ from each alone, and whether one repeats exactly."""
    generator = Generator(model, device=device, precision=precision, batch=len(PROMPTS))
    together = make(generator, PROMPTS, SHORT)
    generator.batch = 1
    alone, again = make(generator, PROMPTS, SHORT), make(generator, PROMPTS[:1], SHORT)
    gaps = [int(np.abs(a.astype(int) - b).max()) for a, b in zip(together, alone, strict=True)]
    return max(gaps), bool(np.array_equal(alone[0], again[0]))


def _largest_batch(model: ImageModel, device: str, precision: str, memory: float | None) -> dict[str, Any]:
    """Return how many images fit into a call: on CUDA tried, on a CPU computed from the memory of one."""
    if torch.device(device).type == "cuda":
        images = 1
        while images < MOST and _fits(model, device, precision, 2 * images):
            images *= 2
        return {"images": images, "by": "trial"}
    budget = memory_for_one_core()
    if not memory or budget is None:
        return {"images": 1, "by": "default, because memory could not be measured"}
    images = min(MOST, max(1, math.floor(budget / memory)))
    return {"images": images, "by": f"half of a core's share of free memory, {budget:.0f} MB"}


def _fits(model: ImageModel, device: str, precision: str, images: int) -> bool:
    generator = Generator(model, device=device, precision=precision, batch=images)
    before = generator.call_pixels
    make(generator, [PROMPTS[0]] * images, SHORT)
    torch.cuda.synchronize()
    # Where it did not fit the generator made smaller calls, for good.
    return generator.call_pixels == before
