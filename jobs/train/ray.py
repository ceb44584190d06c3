"""Training on Ray: several workers in step (DDP), images from any storage, checkpoints in any storage.

    STORAGE/<name>/spec.json             what it began with; a resumed training must be the same
    STORAGE/<name>/keys.parquet          the images it began with: the order of epochs is theirs
    STORAGE/<name>/begins-with/          the weights it began with, if any
    STORAGE/<name>/checkpoint_...        Ray Train's, the last ones; resumed from by the same command
    STORAGE/<name>/<name>.safetensors    the averaged weights of the last validation; strip.png and log.jsonl beside it

The driver holds a lease on STORAGE/<name>, reads no image but a few, and relays what the leading worker reports.
"""

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from imgtx.errors import ImgtxError, RunInterruptedError, UsageError
from imgtx.models.weight_file import find_weights
from imgtx.training.log import CURVES, LOG, STRIP
from imgtx.training.spec import TrainSpec, check_same
from jobs.train.images import KEYS, Sources, check_images, encode_keys, first_weights, list_images
from pipeline.cluster.address import address_of, check_address
from pipeline.cluster.session import ray_session
from pipeline.ledger.lease import Lease
from pipeline.storage.arrow import arrow_filesystem
from pipeline.storage.checks import check_destination, check_shared
from pipeline.storage.store import Store, open_store

log = logging.getLogger("imgtx.train")

Reporter = Callable[[dict[str, Any]], None]

RESTARTS = 3  # of all workers, from one and the same checkpoint
MOST_RESTARTS = 100  # in all: what ends workers before their first word has no checkpoint to be counted by
KEPT_CHECKPOINTS = 2
POLL_SECONDS = 0.5
SPEC = "spec.json"


@dataclass(frozen=True)
class RayTrainConfig:
    """Who trains and where it lies: `workers` at most, and at least `fewest` where Ray may go on with fewer."""

    workers: int
    storage: str
    min_workers: int = 0
    endpoint_url: str | None = None
    address: str | None = None

    @property
    def counts(self) -> int | tuple[int, int]:
        return (self.min_workers, self.workers) if self.min_workers else self.workers


def read_ray_config(options: dict[str, Any]) -> RayTrainConfig | None:
    """The config that the command's options name, None without --workers; UsageError where they do not go together."""
    given = {name: value for name, value in options.items() if value is not None}
    if "workers" not in given:
        if given:
            option = next(iter(given)).replace("_", "-")
            raise UsageError(f"--{option} is for training on Ray: give --workers too, or leave it out")
        return None
    if "storage" not in given:
        raise UsageError(
            f"--workers {given['workers']}: give --storage too, a folder or s3://bucket/prefix for the checkpoints"
        )
    return RayTrainConfig(**given)


def train_on_ray(spec: TrainSpec, config: RayTrainConfig, folder: Path, report: Reporter) -> Path:
    """Train (or go on training); returns the weight file, fetched into `folder`.

    Raises UsageError, before Ray starts, for a config, a storage or images that cannot be; ImgtxError when training
    stops by itself; RunInterruptedError when Ray does.
    """
    check_ray_config(spec, config)
    check_address(address_of(config))
    root = open_store(f"{config.storage.rstrip('/')}/{spec.name}", endpoint_url=config.endpoint_url)
    check_shared(root)
    check_destination(root)
    with Lease(root, f"train-{spec.name}"):
        sources = begin(spec, root, config.endpoint_url)
        with ray_session(config) as resources:
            use_gpu = check_resources(config, resources)
            _fit(spec, config, root, sources, use_gpu=use_gpu, report=_mirrored(report, folder, root))
    return fetched(root, folder, spec)


def check_ray_config(spec: TrainSpec, config: RayTrainConfig) -> None:
    if not 1 <= config.workers <= spec.batch:
        raise UsageError(
            f"--workers {config.workers}: legal is 1 to {spec.batch}, for each worker takes its part of the spec's "
            f"batch = {spec.batch}: raise batch, or take fewer workers"
        )
    if not 0 <= config.min_workers <= config.workers:
        raise UsageError(
            f"--min-workers {config.min_workers}: legal is 1 to --workers, which is {config.workers}; leave it out "
            f"to wait for all of them"
        )


def check_resources(config: RayTrainConfig, resources: dict[str, float]) -> bool:
    """Whether workers take GPUs, one each; UsageError where the workers have no room."""
    needed = config.min_workers or config.workers
    gpus, cpus = resources.get("GPU", 0.0), resources.get("CPU", 0.0)
    if gpus >= needed:
        return True
    if cpus < needed:
        raise UsageError(
            f"--workers {config.workers}: the cluster has {cpus:g} CPUs and {gpus:g} GPUs, and a worker takes one: "
            f"take fewer workers, or join a larger cluster with --address"
        )
    if gpus:
        log.warning("training on CPUs: %g GPUs are too few for %d workers, one each", gpus, needed)
    return False


def begin(spec: TrainSpec, root: Store, endpoint_url: str | None) -> Sources:
    """The images of the training at `root`: those it began with, or, at its beginning, those that are there now."""
    if root.stat(SPEC) is not None:
        check_same(spec, json.loads(root.read(SPEC)), root.describe())
    sources = Sources(
        open_store(spec.train, endpoint_url=endpoint_url), open_store(spec.valid, endpoint_url=endpoint_url)
    )
    if root.stat(KEYS) is None:
        listed = list_images(sources, spec)
        check_images(sources, listed, spec)
        root.write(KEYS, encode_keys(listed))
    if spec.init_from and root.stat(start := first_weights(spec)) is None:
        root.upload(start, str(find_weights(spec.init_from)))
    root.create(SPEC, json.dumps(asdict(spec), indent=2).encode())
    return sources


def fetched(root: Store, folder: Path, spec: TrainSpec) -> Path:
    """Weights and pictures of the training, beside the log that the driver wrote."""
    for name in (STRIP, f"{spec.name}.safetensors"):
        (folder / name).write_bytes(root.read(name))
    return folder / f"{spec.name}.safetensors"


def _mirrored(report: Reporter, folder: Path, root: Store) -> Reporter:
    """`report`, and after each validation the log and its picture put beside the checkpoints."""

    def mirrored(values: dict[str, Any]) -> None:
        report(values)
        if "valid_psnr_y" in values:
            for name in (LOG, CURVES):
                if (folder / name).is_file():
                    root.write(name, (folder / name).read_bytes())

    return mirrored


def _fit(
    spec: TrainSpec, config: RayTrainConfig, root: Store, sources: Sources, *, use_gpu: bool, report: Reporter
) -> None:
    """Run Ray Train, from its last checkpoint, until it is done or gets on no more."""
    restarts = Restarts(root)

    def trainer(board: Any) -> Any:
        return _trainer(spec, config, root, sources, board, use_gpu=use_gpu)

    while error := _attempt(trainer, report, restarts):
        # Ray Train goes on by itself when a worker is lost, but not when one is while they form their group.
        restarts.again(error)


def _attempt(make: Callable[[Any], Any], report: Reporter, restarts: "Restarts") -> Exception | None:
    """One call of Ray Train in a thread, whose leading worker's words are relayed; the error that it ended with."""
    import ray

    board = ray.remote(num_cpus=0)(ReportMailbox).remote()
    trainer = make(board)
    ended: list[Exception | None] = []

    def fit() -> None:
        try:
            trainer.fit()
            ended.append(None)
        except Exception as error:
            ended.append(error)

    thread = threading.Thread(target=fit, name="imgtx-train", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_SECONDS)
        _relay(ray.get(board.take.remote()), report, restarts)
    _relay(ray.get(board.take.remote()), report, restarts)
    return ended[0]


def _trainer(
    spec: TrainSpec, config: RayTrainConfig, root: Store, sources: Sources, board: Any, *, use_gpu: bool
) -> Any:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from jobs.train.network import NodeInterfaceConfig
    from jobs.train.worker import train_worker

    filesystem, path = arrow_filesystem(replace(root, uri=parent_uri(root)))
    return TorchTrainer(
        train_worker,
        train_loop_config={"spec": asdict(spec), "root": root, "sources": sources, "board": board},
        torch_config=NodeInterfaceConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=config.counts, use_gpu=use_gpu),
        run_config=RunConfig(
            name=spec.name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=MOST_RESTARTS),
            checkpoint_config=CheckpointConfig(num_to_keep=KEPT_CHECKPOINTS),
        ),
    )


def parent_uri(root: Store) -> str:
    """The URI above `root`: Ray Train adds the name itself."""
    return root.uri.rstrip("/").rpartition("/")[0]


def _relay(lines: list[dict[str, Any]], report: Reporter, restarts: "Restarts") -> None:
    for line in lines:
        if "stopped" in line:
            raise ImgtxError(line["stopped"])
        if "failed" in line:
            restarts.failure = line["failed"]
        elif "began" in line:
            restarts.count(line["began"])
        else:
            report(line)


class Restarts:
    """How often all workers began from one checkpoint: nodes may come and go for days, a fault that stays may not.

    Ray Train itself counts over the whole training, and tells its workers' errors only when it gives up.
    """

    def __init__(self, root: Store) -> None:
        self._root, self._checkpoint, self._begun = root, "", 0
        self.failure = ""  # the last that a worker told of

    def count(self, checkpoint: str) -> None:
        """The workers begin at a checkpoint; raises RunInterruptedError when they began there too often."""
        self._begun = self._begun + 1 if checkpoint == self._checkpoint else 1
        self._checkpoint = checkpoint
        if self._begun > 1 + RESTARTS:
            raise self.stopped(f"{RESTARTS} restarts reached no new checkpoint")

    def again(self, error: Exception) -> None:
        """Ray Train gave up; raises RunInterruptedError when the last checkpoint has seen enough."""
        self._begun += 1
        if self._begun > 1 + RESTARTS:
            raise self.stopped(error) from error
        log.warning("training ended (%s): going on from its last checkpoint", last_line(error))

    def stopped(self, error: Exception | str) -> RunInterruptedError:
        """One line: a worker's words where one had the time to say them, else the last line of `error`."""
        failure = (
            " ".join(self.failure.split())[:300] or "no worker said why: it was killed, or its node lost"
        )
        return RunInterruptedError(
            f"training stopped: {last_line(error)} ({failure}); its checkpoints are at {self._root.describe()}, "
            f"the same command goes on"
        )


def last_line(error: Exception | str) -> str:
    """What a chain of errors began with stands last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


class ReportMailbox:
    """An actor on which the leading worker leaves its reports for the driver."""

    def __init__(self) -> None:
        self._lines: list[dict[str, Any]] = []

    def put(self, line: dict[str, Any]) -> None:
        self._lines.append(line)

    def take(self) -> list[dict[str, Any]]:
        lines, self._lines = self._lines, []
        return lines
