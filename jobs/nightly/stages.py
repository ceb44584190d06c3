"""The stages of a night: each takes the night and what the stages before it found, and returns what it found.

A stage may begin anew after a kill: what it does twice it does the same. `told` is what a person reads of it.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imgtx.errors import ModelError
from imgtx.models.weight_file import file_digest
from jobs.models.admin import facts_of
from jobs.nightly.context import Night, latest, training_spec, upscale_spec
from jobs.nightly.gate import Verdict, judge
from jobs.nightly.images import choose, fetch_cuts, from_parquet, to_parquet
from pipeline.models.references import exact_reference

IMAGES = "images.parquet"
MOVES = 5  # times that `latest` may move under the gate before the night gives up

Stages = dict[str, dict[str, Any]]
Stage = Callable[[Night, Stages], dict[str, Any]]


def plan(night: Night, _: Stages) -> dict[str, Any]:
    """Draw the images, and write down where the night begins: it trains from one version, whatever moves meanwhile."""
    begin = latest(night).version
    spec = night.spec
    choice = choose(night.archive, night.state, night.date, most_new=spec.most_new, replayed=spec.replayed)
    taken = choice.new.num_rows
    rows = choice.rows if taken else choice.new
    night.own.write(IMAGES, to_parquet(rows))
    return {"begin": begin, "new": choice.found_new, "taken": taken, "replayed": rows.num_rows - taken}


def train(night: Night, stages: Stages) -> dict[str, Any]:
    """Go on training from the version of the plan; the one door to whatever trains."""
    if not stages["plan"]["taken"]:
        return _skipped("nothing new in the archive")
    spec = training_spec(night, stages["plan"]["begin"])
    rows = from_parquet(night.own.read(IMAGES))
    side = night.spec.largest_side
    left_out = fetch_cuts(night.archive, rows, night.images, smallest=spec.scale * spec.crop, largest=side)
    usable = rows.num_rows - left_out.total()
    if not usable:
        return _skipped(f"no image could be trained on: {dict(left_out)}")
    from jobs.train.terminal import run_training  # brings torch

    weights = run_training(spec, night.folder / "training", night.shown.console)
    return {"images": usable, "left_out": dict(left_out), "digest": file_digest(weights)}


def evaluate(night: Night, stages: Stages) -> dict[str, Any]:
    """Measure the new weights' halo and quality, and the current version's quality, on the same datasets."""
    if skipped := _was_skipped(stages["train"]):
        return skipped
    from jobs.evaluation.model_card import finish  # brings torch

    command = f"imgtx nightly SPEC --date {night.date}` on `{night.name}@{stages['plan']['begin']}"
    out, sets = night.folder / "finished", night.datasets
    try:
        made = finish(trained(night), photos=night.valid, benchmarks=sets, out=out, command=command)
    except ModelError as error:
        return _skipped(f"the new weights are of no use: {error}")
    current = latest(night).version
    candidate = {name: _score(value) for name, value in made.info.training["metrics"].items()}
    degradation = made.info.training["spec"]["degradation"]  # what `finish` measured the candidate on
    return {
        "against": current,
        "degradation": degradation,
        "current": _scores_of(night, current, degradation),
        "candidate": candidate,
        "digest": file_digest(made.weights),
    }


def publish(night: Night, stages: Stages) -> dict[str, Any]:
    """Put the new weights into the store as a version; whether it becomes the latest is the gate's to say."""
    if skipped := _was_skipped(stages["evaluate"]):
        return skipped
    weights = finished(night)
    also = {"card.md": weights.with_suffix(".md"), "evaluation.json": weights.with_suffix(".json")}
    also |= {path.name: path for path in weights.parent.glob("*.png")}
    also |= {"log.jsonl": night.folder / "training" / "log.jsonl"}
    card = facts_of(weights) | {
        "from": f"nightly {night.date}",
        "began_with": stages["plan"]["begin"],
        "images": stages["train"]["images"],
    }
    contents = {name: path.read_bytes() for name, path in also.items() if path.is_file()}
    return {"version": night.models.add(night.name, weights.read_bytes(), card, contents).number}


def gate(night: Night, stages: Stages) -> dict[str, Any]:
    """Make the new version the latest if it passes, or leave everything as it is."""
    if skipped := _was_skipped(stages["publish"]):
        return skipped
    number, measured = stages["publish"]["version"], stages["evaluate"]
    against, current = measured["against"], measured["current"]
    for _ in range(MOVES):
        if any(pointer.version == number for pointer in night.models.history(night.name)):
            return {"promoted": number, "told": f"{number} became the latest before this night was stopped"}
        now = latest(night)
        if now.version != against:
            against, current = now.version, _scores_of(night, now.version, measured["degradation"])
        verdict = judge(night.spec.rule, current=current, candidate=measured["candidate"])
        if not verdict.passed:
            return _told_verdict(None, against, number, verdict)
        why = f"nightly {night.date}, against {against}: {verdict.why}"
        if night.models.promote(night.name, number, why=why, over=now) is not None:
            return _told_verdict(number, against, number, verdict)
    raise ModelError(
        f"the latest of {night.name} moved {MOVES} times while it was judged: run the same command again"
    )


def upscale(night: Night, stages: Stages) -> dict[str, Any]:
    """Bring the destination up to date with the latest version: what its weights made stale, and what is new."""
    if not night.spec.upscale:
        return _skipped("not asked for")
    from jobs.run.driver import run

    spec = upscale_spec(night, exact_reference(night.reference("latest"), night.spec.endpoint_url))
    with night.shown.watching() as watch:
        summary = run(spec, watch)
    allowed = spec.failures_allowed(summary.listed - summary.left)
    return {
        "model": spec.model,
        "run": summary.run,
        "listed": summary.listed,
        "written": summary.written,
        "current": summary.current,
        "failed": summary.failed,
        "too_many_failed": summary.failed > allowed or not summary.accounted,
    }


STAGES: dict[str, Stage] = {
    "plan": plan,
    "train": train,
    "evaluate": evaluate,
    "publish": publish,
    "gate": gate,
    "upscale": upscale,
}


def trained(night: Night) -> Path:
    return night.folder / "training" / f"{night.name}.safetensors"


def finished(night: Night) -> Path:
    return night.folder / "finished" / f"{night.name}.safetensors"


def _scores_of(night: Night, number: str, degradation: str) -> dict[str, float | None]:
    from jobs.evaluation.super_resolution import evaluate as measure

    reference, url = night.reference(number), night.spec.endpoint_url
    report = measure(reference, night.datasets, endpoint_url=url, degradation=degradation)
    return {dataset.name: _score(round(dataset.mean("psnr_y"), 3)) for dataset in report.datasets}


def _score(psnr: float) -> float | None:
    """JSON has no infinity, which is the PSNR of equal images."""
    return None if math.isinf(psnr) else psnr


def _skipped(why: str) -> dict[str, Any]:
    return {"skipped": why, "told": why}


def _was_skipped(before: dict[str, Any]) -> dict[str, Any] | None:
    """What a stage returns that has nothing to work on, because the one before had not."""
    return {"skipped": before["skipped"], "told": "skipped"} if "skipped" in before else None


def _told_verdict(promoted: str | None, against: str, number: str, verdict: Verdict) -> dict[str, Any]:
    stands = f"latest {against} -> {number}" if promoted else f"latest stays {against}, not {number}"
    return {"promoted": promoted, "against": against, "why": verdict.why, "told": f"{stands}: {verdict.why}"}
