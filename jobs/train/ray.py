"""Training on Ray: several workers in step (DDP), images from any storage, checkpoints in any storage.

    STORAGE/<name>/spec.json             its spec; a resumed training must have the same
    STORAGE/<name>/keys.parquet          the images it began with, which fix the order of epochs
    STORAGE/<name>/begins-with/          the weights it began with, if any
    STORAGE/<name>/checkpoint_...        Ray Train's last ones; the same command resumes from them
    STORAGE/<name>/<name>.safetensors    the averaged weights of the last validation; strip.png and log.jsonl beside it

The driver holds a lease on STORAGE/<name>, reads only a few images, and passes on what the leading worker reports.
"""

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from imgtx.errors import ImgtxError, UsageError
from imgtx.models.weight_file import find_weights
from imgtx.training.log import CURVES, LOG, STRIP
from imgtx.training.spec import TrainSpec, check_same
from jobs.train.images import KEYS, Sources, check_images, encode_keys, first_weights, list_images
from jobs.train.restarts import Restarts
from pipeline.cluster.address import check_address
from pipeline.cluster.session import ray_session
from pipeline.ledger.lease import Lease
from pipeline.storage.arrow import arrow_filesystem
from pipeline.storage.checks import check_destination, check_shared
from pipeline.storage.store import Store, open_store

log = logging.getLogger("imgtx.train")

Reporter = Callable[[dict[str, Any]], None]

# In all: workers that end before their first report name no checkpoint to count by.
MAX_RESTARTS = 100
KEPT_CHECKPOINTS = 2
POLL_SECONDS = 0.5
SPEC = "spec.json"


@dataclass(frozen=True)
class RayTrainConfig:
    """How many workers train, and where their state is.

    At most `workers`; at least `min_workers`, where Ray may continue with fewer.
    """

    workers: int
    storage: str
    min_workers: int = 0
    endpoint_url: str | None = None
    address: str | None = None

    @property
    def counts(self) -> int | tuple[int, int]:
        return (self.min_workers, self.workers) if self.min_workers else self.workers


def read_ray_config(options: dict[str, Any]) -> RayTrainConfig | None:
    """Return the config that the command's options give, None without --workers; UsageError if they conflict."""
    given = {name: value for name, value in options.items() if value is not None}
    if "workers" not in given:
        if given:
            option = next(iter(given)).replace("_", "-")
            raise UsageError(f"--{option} is for training on Ray: give --workers too, or omit it")
        return None
    if "storage" not in given:
        raise UsageError(
            f"--workers {given['workers']}: give --storage too, a folder or s3://bucket/prefix for the checkpoints"
        )
    return RayTrainConfig(**given)


def train_on_ray(spec: TrainSpec, config: RayTrainConfig, folder: Path, report: Reporter) -> Path:
    """Train, or continue training; return the weight file, fetched into `folder`.

    Raises UsageError, before Ray starts, for a config, storage or images that cannot work; ImgtxError when training
    fails by itself; RunInterruptedError when Ray does.
    """
    check_ray_config(spec, config)
    check_address(config)
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
            f"--workers {config.workers}: must be 1 to {spec.batch}, because each worker takes its part of the spec's "
            f"batch = {spec.batch}: raise batch, or use fewer workers"
        )
    if not 0 <= config.min_workers <= config.workers:
        raise UsageError(
            f"--min-workers {config.min_workers}: must be 1 to --workers, which is {config.workers}; omit it to wait "
            f"for all workers"
        )


def check_resources(config: RayTrainConfig, resources: dict[str, float]) -> bool:
    """Return whether workers take GPUs, one each; UsageError if the cluster has no room for them."""
    needed = config.min_workers or config.workers
    gpus, cpus = resources.get("GPU", 0.0), resources.get("CPU", 0.0)
    if gpus >= needed:
        return True
    if cpus < needed:
        raise UsageError(
            f"--workers {config.workers}: the cluster has {cpus:g} CPUs and {gpus:g} GPUs, and a worker takes one: "
            f"use fewer workers, or join a larger cluster with --address"
        )
    if gpus:
        log.warning("training on CPUs: %g GPUs are too few for %d workers, which take one each", gpus, needed)
    return False


def begin(spec: TrainSpec, root: Store, endpoint_url: str | None) -> Sources:
    """Prepare the training at `root`, or check that it is the same one; return the places of its images."""
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
    """Fetch the weights and pictures of the training, beside the log that the driver wrote."""
    for name in (STRIP, f"{spec.name}.safetensors"):
        (folder / name).write_bytes(root.read(name))
    return folder / f"{spec.name}.safetensors"


def _mirrored(report: Reporter, folder: Path, root: Store) -> Reporter:
    """Wrap `report` so that each validation copies the log and its curves beside the checkpoints."""

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
    """Run Ray Train from its last checkpoint until it is done or makes no more progress."""
    restarts = Restarts(root)

    def make(mailbox: Any) -> Any:
        return _trainer(spec, config, root, sources, mailbox, use_gpu=use_gpu)

    while error := _attempt(make, report, restarts):
        # Ray Train recovers by itself from a lost worker, but not while the workers form their group.
        restarts.count_failure(error)


def _attempt(make: Callable[[Any], Any], report: Reporter, restarts: Restarts) -> Exception | None:
    """Run Ray Train once, in a thread, and pass on its reports; return the error that it ended with."""
    import ray

    mailbox = ray.remote(num_cpus=0)(ReportMailbox).remote()
    trainer = make(mailbox)
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
        _relay(ray.get(mailbox.take.remote()), report, restarts)
    _relay(ray.get(mailbox.take.remote()), report, restarts)
    return ended[0]


def _trainer(
    spec: TrainSpec, config: RayTrainConfig, root: Store, sources: Sources, mailbox: Any, *, use_gpu: bool
) -> Any:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from jobs.train.network import NodeInterfaceConfig
    from jobs.train.worker import train_worker

    filesystem, path = arrow_filesystem(replace(root, uri=parent_uri(root)))
    return TorchTrainer(
        train_worker,
        train_loop_config={"spec": asdict(spec), "root": root, "sources": sources, "mailbox": mailbox},
        torch_config=NodeInterfaceConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=config.counts, use_gpu=use_gpu),
        run_config=RunConfig(
            name=spec.name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=MAX_RESTARTS),
            checkpoint_config=CheckpointConfig(num_to_keep=KEPT_CHECKPOINTS),
        ),
    )


def parent_uri(root: Store) -> str:
    """Return the URI above `root`: Ray Train adds the name itself."""
    return root.uri.rstrip("/").rpartition("/")[0]


def _relay(lines: list[dict[str, Any]], report: Reporter, restarts: Restarts) -> None:
    for line in lines:
        if "stopped" in line:
            raise ImgtxError(line["stopped"])
        if "failed" in line:
            restarts.failure = line["failed"]
        elif "began" in line:
            restarts.count_start(line["began"])
        else:
            report(line)


class ReportMailbox:
    """An actor in which the workers leave their reports for the driver."""

    def __init__(self) -> None:
        self._lines: list[dict[str, Any]] = []

    def put(self, line: dict[str, Any]) -> None:
        self._lines.append(line)

    def take(self) -> list[dict[str, Any]]:
        lines, self._lines = self._lines, []
        return lines
