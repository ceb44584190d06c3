"""The stages of a nightly run: each gets the run and the findings of the stages before it, and returns its own.

Stages are idempotent, because one that was killed starts again. `summary` in their findings is for the user.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imgtx.errors import DONE, ModelError
from imgtx.models.weight_file import file_digest
from imgtx.training.waiting import wait_briefly
from jobs.models.admin import facts_of
from jobs.nightly.context import NightlyRun, latest, training_spec, upscale_spec
from jobs.nightly.gate import Verdict, judge
from jobs.nightly.images import choose, fetch_cuts, from_parquet, to_parquet
from jobs.run.exit_code import exit_code
from pipeline.models.resolve import exact_reference

IMAGES = "images.parquet"
# How often `latest` may move during the gate before the run gives up.
MOVES = 5

Stages = dict[str, dict[str, Any]]
Stage = Callable[[NightlyRun, Stages], dict[str, Any]]


def plan(nightly: NightlyRun, _: Stages) -> dict[str, Any]:
    """Draw the images and record the version to start from, which stays the same even if `latest` moves."""
    begin = latest(nightly).version
    spec = nightly.spec
    limits = {"max_new_images": spec.max_new_images, "replay_images": spec.replay_images}
    choice = choose(nightly.archive, nightly.state, nightly.date, **limits)
    taken = choice.new.num_rows
    rows = choice.rows if taken else choice.new
    nightly.record.write(IMAGES, to_parquet(rows))
    return {"begin": begin, "new": choice.found_new, "taken": taken, "replayed": rows.num_rows - taken}


def train(nightly: NightlyRun, stages: Stages) -> dict[str, Any]:
    """Continue training from the version of the plan."""
    if not stages["plan"]["taken"]:
        return _skipped("nothing new in the archive")
    spec = training_spec(nightly, stages["plan"]["begin"])
    rows = from_parquet(nightly.record.read(IMAGES))
    side = nightly.spec.largest_side
    left_out = fetch_cuts(
        nightly.archive, rows, nightly.images, smallest=spec.scale * spec.crop, largest=side
    )
    usable = rows.num_rows - left_out.total()
    if not usable:
        return _skipped(f"no image could be trained on: {dict(left_out)}")
    # Imported late: it brings torch.
    wait_briefly()
    from jobs.train.terminal import run_training

    weights = run_training(spec, nightly.folder / "training", nightly.display.console)
    return {"images": usable, "left_out": dict(left_out), "digest": file_digest(weights)}


def evaluate(nightly: NightlyRun, stages: Stages) -> dict[str, Any]:
    """Measure the new weights' halo and quality, and the current version's quality, on the same datasets."""
    if skipped := _was_skipped(stages["train"]):
        return skipped
    # Imported late: it brings torch.
    from jobs.evaluation.model_card import package

    command = f"imgtx nightly SPEC --date {nightly.date}` on `{nightly.name}@{stages['plan']['begin']}"
    out, sets = nightly.folder / "finished", nightly.datasets
    try:
        made = package(trained(nightly), photos=nightly.valid, benchmarks=sets, out=out, command=command)
    except ModelError as error:
        return _skipped(f"the new weights cannot be used: {error}")
    current = latest(nightly).version
    candidate = {name: _score(value) for name, value in made.info.training["metrics"].items()}
    # The degradation on which `package` measured the candidate.
    degradation = made.info.training["spec"]["degradation"]
    return {
        "against": current,
        "degradation": degradation,
        "current": _scores_of(nightly, current, degradation),
        "candidate": candidate,
        "digest": file_digest(made.weights),
    }


def publish(nightly: NightlyRun, stages: Stages) -> dict[str, Any]:
    """Add the new weights to the model store as a version, which the gate may then make the latest."""
    if skipped := _was_skipped(stages["evaluate"]):
        return skipped
    weights = finished(nightly)
    also = {"card.md": weights.with_suffix(".md"), "evaluation.json": weights.with_suffix(".json")}
    also |= {path.name: path for path in weights.parent.glob("*.png")}
    also |= {"log.jsonl": nightly.folder / "training" / "log.jsonl"}
    card = facts_of(weights) | {
        "from": f"nightly {nightly.date}",
        "began_with": stages["plan"]["begin"],
        "images": stages["train"]["images"],
    }
    contents = {name: path.read_bytes() for name, path in also.items() if path.is_file()}
    return {"version": nightly.models.add(nightly.name, weights.read_bytes(), card, contents).number}


def gate(nightly: NightlyRun, stages: Stages) -> dict[str, Any]:
    """Make the new version the latest if it passes; otherwise change nothing."""
    if skipped := _was_skipped(stages["publish"]):
        return skipped
    number, measured = stages["publish"]["version"], stages["evaluate"]
    against, current = measured["against"], measured["current"]
    for _ in range(MOVES):
        if any(pointer.version == number for pointer in nightly.models.history(nightly.name)):
            return {"promoted": number, "summary": f"{number} became the latest before this run was stopped"}
        now = latest(nightly)
        if now.version != against:
            against, current = now.version, _scores_of(nightly, now.version, measured["degradation"])
        verdict = judge(nightly.spec.rule, current=current, candidate=measured["candidate"])
        if not verdict.passed:
            return _findings_of(None, against, number, verdict)
        why = f"nightly {nightly.date}, against {against}: {verdict.why}"
        if nightly.models.promote(nightly.name, number, why=why, over=now) is not None:
            return _findings_of(number, against, number, verdict)
    raise ModelError(
        f"the latest version of {nightly.name} moved {MOVES} times during the gate: run the same command again"
    )


def upscale(nightly: NightlyRun, stages: Stages) -> dict[str, Any]:
    """Update the destination with the latest version: outputs of older weights, and new images."""
    if not nightly.spec.upscale:
        return _skipped("not requested")
    from jobs.run.driver import run

    spec = upscale_spec(nightly, exact_reference(nightly.reference("latest"), nightly.spec.endpoint_url))
    with nightly.display.watch_run() as watch:
        summary = run(spec, watch)
    return {
        "model": spec.model,
        "run": summary.run,
        "listed": summary.listed,
        "written": summary.written,
        "current": summary.current,
        "failed": summary.failed,
        "too_many_failed": exit_code(spec, summary.to_dict()) != DONE,
    }


STAGES: dict[str, Stage] = {
    "plan": plan,
    "train": train,
    "evaluate": evaluate,
    "publish": publish,
    "gate": gate,
    "upscale": upscale,
}


def trained(nightly: NightlyRun) -> Path:
    return nightly.folder / "training" / f"{nightly.name}.safetensors"


def finished(nightly: NightlyRun) -> Path:
    return nightly.folder / "finished" / f"{nightly.name}.safetensors"


def _scores_of(nightly: NightlyRun, number: str, degradation: str) -> dict[str, float | None]:
    from jobs.evaluation.super_resolution import evaluate as measure

    reference, url = nightly.reference(number), nightly.spec.endpoint_url
    report = measure(reference, nightly.datasets, endpoint_url=url, degradation=degradation)
    return {dataset.name: _score(round(dataset.mean("psnr_y"), 3)) for dataset in report.datasets}


def _score(psnr: float) -> float | None:
    """Return the PSNR, or None for infinity (equal images), which JSON lacks."""
    return None if math.isinf(psnr) else psnr


def _skipped(why: str) -> dict[str, Any]:
    return {"skipped": why, "summary": why}


def _was_skipped(before: dict[str, Any]) -> dict[str, Any] | None:
    """Return the findings of a stage after a skipped one; None if that was not skipped."""
    return {"skipped": before["skipped"], "summary": "skipped"} if "skipped" in before else None


def _findings_of(promoted: str | None, against: str, number: str, verdict: Verdict) -> dict[str, Any]:
    outcome = f"latest {against} -> {number}" if promoted else f"latest stays {against}, not {number}"
    return {
        "promoted": promoted,
        "against": against,
        "why": verdict.why,
        "summary": f"{outcome}: {verdict.why}",
    }
