"""One Ray Train worker: its data, checkpoints and reports."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch.distributed as dist
from ray.train import Checkpoint
from torch import Tensor, nn

from imgtx.errors import ImageError, ImgtxError, UsageError
from imgtx.training.data.left_out import LeftOut
from imgtx.training.data.pairs import degrade_validation
from imgtx.training.feeds import Data
from imgtx.training.log import STRIP
from imgtx.training.loop import run
from imgtx.training.spec import TrainSpec
from imgtx.training.state import Training
from jobs.train.images import KEYS, TRAIN, VALID, Sources, decode_keys, load_valid, part_of
from jobs.train.start import first_weights
from jobs.train.stream import Images, Shard, Stream
from pipeline.storage.store import Store


class RayWorkerGroup:
    """The workers of one Ray Train run."""

    def __init__(self, root: Store) -> None:
        context = ray.train.get_context()
        self.rank, self.workers = context.get_world_rank(), context.get_world_size()
        self.is_leader = self.rank == 0
        self._root = root

    def wrap(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        return ray.train.torch.prepare_model(network)

    def share(self, crops: int, batch: int) -> float:
        return crops * self.workers / batch

    def mean(self, values: Tensor) -> Tensor:
        if self.workers > 1:
            values = values.to(ray.train.torch.get_device())
            dist.all_reduce(values)
        return values / self.workers

    def checkpoint(self, training: Training) -> None:
        """Report the leader's state as Ray Train's checkpoint, and write its weights and pictures beside it."""
        checkpoint = None
        if self.is_leader:
            training.save()
            for path in (training.folder / STRIP, training.folder / f"{training.spec.name}.safetensors"):
                if path.is_file():
                    self._root.write(path.name, path.read_bytes())
            # A folder of its own, because Ray Train copies whole folders.
            alone = training.folder / "checkpoint"
            alone.mkdir(exist_ok=True)
            shutil.copyfile(training.checkpoint, alone / training.checkpoint.name)
            checkpoint = Checkpoint.from_directory(str(alone))
        ray.train.report({"step": training.progress.step}, checkpoint=checkpoint)


def train_worker(config: dict[str, Any]) -> None:
    """Run one worker of `TorchTrainer`; `config` comes from `jobs.train.ray`."""
    root: Store = config["root"]
    mailbox = config["mailbox"]
    spec = TrainSpec(**config["spec"])
    group = RayWorkerGroup(root)

    def report(line: dict[str, Any]) -> None:
        if group.is_leader:
            ray.get(mailbox.put.remote(line | {"workers": group.workers}))

    def tell(name: str, error: ImageError) -> None:
        mailbox.put.remote({"left_out": name, "reason": error.reason, "message": str(error)})

    with tempfile.TemporaryDirectory(prefix="imgtx-train-") as folder:
        resumed = ray.train.get_checkpoint()
        report({"began": resumed.path if resumed else ""})
        if resumed:
            resumed.to_directory(folder)
        try:
            shard = Shard(group.rank, group.workers)
            data = worker_data(spec, root, config["sources"], shard, LeftOut(tell))
            weights = "" if resumed else fetch_first_weights(spec, root, Path(folder))
            device = str(ray.train.torch.get_device())
            training = Training(spec, Path(folder), device, group, first_weights=weights)
            run(training, data, report)
        except UsageError as error:
            # No start of these workers can cure it.
            ray.get(mailbox.put.remote({"refused": str(error)}))
        except Exception as error:
            # A value that is not finite is so on every worker; a restart may cure the rest.
            if type(error) is ImgtxError:
                report({"stopped": str(error)})
                return
            ray.get(mailbox.put.remote({"failed": f"{type(error).__name__}: {error}"}))
            raise


def fetch_first_weights(spec: TrainSpec, root: Store, folder: Path) -> str:
    """Fetch the weights to start from to this machine; return their path, "" where there are none."""
    if not spec.init_from:
        return ""
    key = first_weights(spec)
    path = folder / key
    path.parent.mkdir()
    root.download(key, str(path))
    return str(path)


def worker_data(
    spec: TrainSpec, root: Store, sources: Sources, shard: Shard, left_out: LeftOut | None = None
) -> Data:
    """Return this worker's part of the batches; the leader gets the validation images too.

    left_out: collects the images that cannot be used.
    """
    listed = decode_keys(root.read(KEYS))
    images = Images(sources.train, part_of(listed, TRAIN), spec.scale)
    settings = spec.crop_settings
    stream = Stream(
        images,
        settings,
        seed=spec.seed,
        batch=spec.batch,
        crops=spec.crops_per_image,
        shard=shard,
        left_out=left_out,
    )
    if shard.rank:
        return Data(stream, [])
    valid = load_valid(sources.valid, part_of(listed, VALID).to_pylist(), spec.scale, left_out)
    return Data(stream, degrade_validation(valid, settings.degradation, settings.damage))
