"""Transform: turn stacks of tiles into whole output images. The one stage with state: a model, loaded once an actor."""

import json
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from imgtx.errors import ModelError
from imgtx.imageops.resize import imresize
from imgtx.inference.tiling import Plan, plan_for_model
from imgtx.models.generation import remarks_on
from imgtx.models.references import read_info
from pipeline.cluster.drain import drain_watcher
from pipeline.cluster.parts import part_sender
from pipeline.models.resolve import local_model
from pipeline.spec import Job
from pipeline.stages.on_disk import transform_large
from pipeline.stages.part_done import PartReporter
from pipeline.stages.spool_folder import remove_abandoned
from pipeline.tables.rows import Row, as_bytes, rows_of, run_stage, to_table
from pipeline.tables.schemas import PIXELS, UNTOUCHED, WAITED
from pipeline.tasks import get_task

if TYPE_CHECKING:
    # Imports torch, which the driver does without.
    from imgtx.inference.predictor import Predictor

log = logging.getLogger("imgtx.pipeline")

# Of tiles that go to the device together: bounds the memory of their outputs.
GROUP_BYTES = 64 << 20
MAX_TOGETHER = 1 << 20


class Transform:
    """Run one model on one device: from PIXELS tables of tile stacks to PIXELS tables of whole images."""

    def __init__(self, job: Job, device: str | None = None):
        # torch is imported only where a model runs: CPU stages start ten times faster without it.
        import torch

        from imgtx.inference.predictor import default_device

        # A process that this one replaces may have been killed.
        remove_abandoned()
        self.job = job
        self.reporter = PartReporter()
        self.device = device or default_device()
        if self.device == "cpu":
            # One actor a core is faster than one process with many threads.
            torch.set_num_threads(1)
        for choice in job.choices:
            # Before the first image, although it is loaded with the first one that needs it.
            _check_digest(choice.job, read_info(self._local(choice.job))[1])
        self._predictors: dict[str, Predictor] = {}
        self.predictor = self.predictor_for(job.choices[0].job if job.choices else job)
        # Tiles of several images fill one batch on a GPU, and images that are made from text anywhere; on a CPU a batch
        # of other images gains nothing and costs memory.
        self.batched = self.predictor.device.type != "cpu" or self.predictor.batch > 1
        self.free_since = time.perf_counter()
        # Seconds that no row has reported yet.
        self.waited = 0.0
        self.drain_watcher = drain_watcher()
        self.reporter.send = part_sender()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        with self.drain_watcher.working() if self.drain_watcher else nullcontext():
            self.waited += time.perf_counter() - self.free_since
            for row in self.outputs(rows_of(batch)):
                row[WAITED.name], self.waited = self.waited, 0.0
                made = time.perf_counter()
                yield to_table([row], PIXELS)
                self.free_since = time.perf_counter()
                self.waited += self.free_since - made

    def predictor_for(self, job: Job) -> "Predictor":
        """Return the model of this run's job, or of one of its choices, loaded when it is first asked for."""
        from imgtx import load

        if job.spec.model not in self._predictors:
            predictor = load(
                self._local(job),
                device=self.device,
                precision=job.recipe.precision,
                info=job.info,
                compiled=job.recipe.compiled,
                self_ensemble=job.recipe.self_ensemble,
                conditions=get_task(job.spec.task).conditions(job),
            )
            _check_digest(job, predictor.digest)
            predictor.on_share = self.reporter.done
            self._predictors[job.spec.model] = predictor
        return self._predictors[job.spec.model]

    def _local(self, job: Job) -> str:
        return local_model(job.spec.model, job.spec.endpoint_url)

    def outputs(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows of whole images for rows of tiles, without the seconds that the actor waited."""
        for group in _groups(rows, self._most_together()) if self.batched else ([row] for row in rows):
            together = self._predict_together(group) if self.batched else {}
            for row in group:
                work = partial(self._transform, ready=together.get(row["key"]))
                row = run_stage("transform", row, work)
                self.reporter.end()
                yield row

    def _most_together(self) -> int:
        """Return how many images wait for each other: of those that take long to make, one call's."""
        return max(1, self.predictor.batch) if self.job.info.generation else MAX_TOGETHER

    def _predict_together(self, rows: list[Row]) -> dict[str, np.ndarray]:
        """Return outputs of the rows that can share batches; none if that fails, so that each row then runs alone."""
        ready = [row for row in rows if not (row["status"] or row["large"] or row["model"] == UNTOUCHED)]
        started = time.perf_counter()
        self.reporter.begin(ready[0] if len(ready) == 1 else None)
        try:
            outputs = self._run(ready)
        # Any error belongs to one of the images: run alone, it becomes that image's row.
        except Exception as error:
            log.warning("a shared batch of %d images failed (%s): running them one by one", len(ready), error)
            return {}
        second = (time.perf_counter() - started) / max(1, sum(len(row["tiles"]) for row in ready))
        for row in ready:
            row["seconds_transform"] += second * len(row["tiles"])
        return {row["key"]: output for row, output in zip(ready, outputs, strict=True)}

    def _transform(self, row: Row, ready: np.ndarray | None) -> Row:
        if row["model"] == UNTOUCHED and not row["large"]:
            return row
        if row["large"]:
            self.reporter.begin(row, at_once=True)
            return transform_large(row, self.job, self.predictor_for)
        if ready is None:
            self.reporter.begin(row)
        output = self._run([row])[0] if ready is None else ready
        height, width, channels = output.shape
        return self._noted(row) | {
            "shape": (1, height, width, channels),
            "tiles": as_bytes(output),
            "alpha": self._enlarged_alpha(row),
        }

    def _noted(self, row: Row) -> Row:
        """Note what of a prompt the model did not see or does not know."""
        if not self.job.info.generation:
            return row
        remarks = remarks_on(self.predictor.model, json.loads(row["conditions"]))
        return row | {
            "notes": [*row["notes"], *remarks.notes],
            "measures": dict(row["measures"]) | remarks.measures,
            "message": remarks.message,
        }

    def _run(self, rows: list[Row]) -> list[np.ndarray]:
        """Run each row's model on whole rows, with the conditions of each where it has any."""
        outputs: dict[str, np.ndarray] = {}
        for model in dict.fromkeys(row["model"] for row in rows):
            theirs = [row for row in rows if row["model"] == model]
            predictor = self.predictor_for(self.job.of(theirs[0])) if self.job.choices else self.predictor
            stacks = [self._stack(row) for row in theirs]
            conditions = [json.loads(row["conditions"] or "{}") for row in theirs]
            made = predictor.run(stacks, conditions) if any(conditions) else predictor.run(stacks)
            outputs |= {row["key"]: output for row, output in zip(theirs, made, strict=True)}
        return [outputs[row["key"]] for row in rows]

    def _stack(self, row: Row) -> tuple[Plan, np.ndarray]:
        tiles = np.frombuffer(row["tiles"], row["dtype"]).reshape(row["shape"])
        return plan_for_model(self.job.of(row).info, row["in_height"], row["in_width"]), tiles

    def _enlarged_alpha(self, row: Row) -> pa.Buffer | bytes:
        """Return alpha enlarged by bicubic: it is a mask, not a picture that the model was trained on."""
        if not len(row["alpha"]):
            return b""
        alpha = np.frombuffer(row["alpha"], row["dtype"]).reshape(row["in_height"], row["in_width"])
        return as_bytes(imresize(alpha, self.job.of(row).info.scale))


def _check_digest(job: Job, digest: str | None) -> None:
    if digest != job.recipe.model_digest:
        raise ModelError(
            f"{job.spec.model} has the digest {str(digest)[:12]} here and {job.recipe.model_digest[:12]} where the run "
            "began: put the same file on every machine, and leave it"
        )


def _groups(rows: Iterable[Row], most: int) -> Iterator[list[Row]]:
    """Yield rows in lists of at most `most` rows and GROUP_BYTES of tiles, or of one row."""
    group: list[Row] = []
    size = 0
    for row in rows:
        if group and (len(group) == most or size + len(row["tiles"]) > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(row)
        size += len(row["tiles"])
    if group:
        yield group
