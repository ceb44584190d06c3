"""Measure the sampler of our text-to-image model: a few evaluations of the network against 50 steps of Heun's method.

    python -m bench.sampler_steps WEIGHTS.safetensors [--prompts 100] [--evaluations 8,12,16,24,32] [--heun 4,8]
        [--precision bfloat16]

All draw the same prompts (those of `imgtx evaluate --protocol scenes`, of each kind alike) from the same noise. For
each number of evaluations: by how many levels of 255 pictures differ from those of 50 Heun steps, on average; the
shares of attributes and of whole pictures that the checker finds right; and CPU seconds a picture. Prints the table for
the docs.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bench.report import save
from imgtx.models.text_to_image_config import GUIDANCE, STEPS
from imgtx.models.text_to_image_model import TextToImageModel
from imgtx.models.text_to_image_sampler import Solver, dpm_solver, heun
from imgtx.models.weights import load_model
from imgtx.training.scenes.examination import KINDS, Question, marks, questions

REFERENCE_STEPS = 50
BATCH = 16


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("weights", type=Path)
    arguments.add_argument("--prompts", type=int, default=100, help="of all kinds together")
    arguments.add_argument("--evaluations", type=numbers, default=numbers("4,8,12,16,24,32"))
    arguments.add_argument("--heun", type=numbers, default=numbers("4,8"), help="steps of Heun beside the 50")
    arguments.add_argument("--guidance", type=float, default=GUIDANCE)
    arguments.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    arguments.add_argument("--name", default="sampler_steps", help="of the JSON file under bench/results/")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.weights).eval()
    if not isinstance(model, TextToImageModel):
        raise SystemExit(
            f"{options.weights} is for {model.info.task}: give weights of our text-to-image model"
        )
    each = -(-options.prompts // len(KINDS))
    asked = [question for kind in KINDS for question in questions(kind, each)][: options.prompts]
    runs: list[tuple[str, Solver, int]] = [("Heun", heun, REFERENCE_STEPS)]
    runs += [("Heun", heun, steps) for steps in options.heun]
    runs += [("DPM-Solver++(2M)", dpm_solver, steps) for steps in options.evaluations]
    rows, reference = [], None
    for name, solver, steps in runs:
        began = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bfloat16"):
            pictures = draw(model, asked, solver, steps, options.guidance)
        seconds = (time.process_time() - began) / len(asked)
        reference = pictures if reference is None else reference
        found = marks([*np.rint(pictures * 255).astype(np.uint8)], [q.description for q in asked])
        rows.append(
            {
                "sampler": name,
                "evaluations": 2 * steps - 1 if solver is heun else steps,
                "levels_from_reference": round(float(np.abs(pictures - reference).mean()) * 255, 2),
                "attributes": round(100 * found["attributes"], 1),
                "everything": round(100 * found["everything"], 1),
                "cpu_seconds_per_image": round(seconds, 3),
            }
        )
        print(*(f"{key} {value}" for key, value in rows[-1].items()), sep=", ", flush=True)
    print(table_of(rows))
    lists = {"evaluations": options.evaluations, "heun": options.heun}
    command = f"python -m bench.sampler_steps {options.weights.name} --prompts {options.prompts} "
    command += " ".join(f"--{name} {','.join(map(str, steps))}" for name, steps in lists.items())
    command += f" --precision {options.precision}"
    facts = {"command": command, "digest": model.digest, "default_steps": STEPS, "guidance": options.guidance}
    save(options.name, facts | {"prompts": len(asked), "rows": rows})


@torch.inference_mode()
def draw(
    model: TextToImageModel, asked: Sequence[Question], solver: Solver, steps: int, guidance: float
) -> np.ndarray:
    """Draw a picture for each question: (N, S, S, 3) float32 in [0, 1]."""
    made = []
    for start in range(0, len(asked), BATCH):
        few = asked[start : start + BATCH]
        wanted = [model.tokenizer(question.prompt, "") for question in few]
        nothing = [model.tokenizer("")] * len(few)
        seeds = [question.seed for question in few]
        made.append(model.draw(wanted, nothing, seeds, steps, [guidance] * len(few), solver))
    return torch.cat(made).permute(0, 2, 3, 1).numpy()


def table_of(rows: Sequence[dict]) -> str:
    """Return the rows as a table in Markdown."""
    head = "| sampler | evaluations | levels from 50 Heun steps | attributes right | all right | CPU s an image |"
    lines = (
        f"| {row['sampler']} | {row['evaluations']} | {row['levels_from_reference']} | {row['attributes']} % | "
        f"{row['everything']} % | {row['cpu_seconds_per_image']} |"
        for row in rows
    )
    return "\n".join([head, "|---|---|---|---|---|---|", *lines])


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


if __name__ == "__main__":
    main()
