"""Training on Ray: several workers in step (DDP), images from any storage, checkpoints in any storage.

    STORAGE/<name>/checkpoint_...        Ray Train's last ones; the same command resumes from them
    STORAGE/<name>/<name>.safetensors    the averaged weights of the last validation; strip.png and log.jsonl beside it

The rest there is what it starts with (`jobs.train.start`). The driver holds a lease on STORAGE/<name>, reads only a few
images, and passes on what the leading worker reports.
"""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from imgtx.errors import UsageError
from imgtx.files import removing_empty_folders
from imgtx.training.log import CURVES, LOG, STRIP
from imgtx.training.spec import TrainSpec
from jobs.train.attempts import fit
from jobs.train.images import Sources
from jobs.train.reports import Relay, Reporter
from jobs.train.restarts import Restarts
from jobs.train.start import prepare, read_recorded, record
from pipeline.cluster.address import check_address
from pipeline.cluster.session import ray_session
from pipeline.ledger.lease import Lease, check_free
from pipeline.storage.arrow import arrow_filesystem
from pipeline.storage.checks import check_destination, check_shared
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import LEASES

log = logging.getLogger("imgtx.train")

# In all: workers that end before their first report name no checkpoint to count by.
MAX_RESTARTS = 100
KEPT_CHECKPOINTS = 2


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
    force_unlock: bool = False

    @property
    def counts(self) -> int | tuple[int, int]:
        return (self.min_workers, self.workers) if self.min_workers else self.workers


def read_ray_config(options: dict[str, Any]) -> RayTrainConfig | None:
    """Return the config that the command's options give, None without --workers; UsageError if they conflict."""
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    for name in ("workers", "min_workers"):
        if given.get(name, 1) < 1:
            option = name.replace("_", "-")
            raise UsageError(f"--{option} {given[name]}: must be 1 or more; leave it out for the default")
    if "workers" not in given:
        if unfit := [name for name in given if name != "endpoint_url"]:
            option = unfit[0].replace("_", "-")
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
    # Of storage on this machine; that of others has no folders.
    local = Path(root.uri) / LEASES if root.is_local else folder
    with removing_empty_folders(local):
        check_destination(root)
        if not config.force_unlock:
            check_free(root)
        start = prepare(spec, root, config.endpoint_url)
        with ray_session(config) as resources:
            use_gpu = check_resources(config, resources)
            # Not before: a lease leaves its file behind.
            with Lease(root, f"train-{spec.name}", force_unlock=config.force_unlock) as lease:
                if read_recorded(root) != start.recorded:
                    # Another process started it meanwhile.
                    start = prepare(spec, root, config.endpoint_url)
                record(start, spec, root, config.endpoint_url)
                restarts = Restarts(root)
                relay = Relay(_mirrored(report, folder, root), restarts, start.left_out)

                def make(mailbox: Any) -> Any:
                    return _trainer(spec, config, root, start.sources, mailbox, use_gpu=use_gpu)

                fit(make, relay, restarts, lease)
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
