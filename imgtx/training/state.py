"""The state of a training: its network, optimizer, weight average and progress; a step and a checkpoint of it.

Notable choices: the exponential average of the weights is validated and written; a loss or gradient that is not
finite stops the training and names its step and images, before it reaches the weights; a checkpoint is resumed only
by the spec that it began with.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from imgtx.errors import ImgtxError, UsageError
from imgtx.files import remove_leftovers, write_atomically
from imgtx.models.info import ModelInfo
from imgtx.models.weights import Network, load_model, save_weights
from imgtx.training.objective import Objective
from imgtx.training.optim import WeightAverage, learning_rate, optimizer_of
from imgtx.training.restoration.restoring import Restoring
from imgtx.training.spec import TrainSpec, check_same
from imgtx.training.style.spec import StyleSpec
from imgtx.training.text_to_image.spec import TextToImageSpec

Spec = TrainSpec | TextToImageSpec | StyleSpec

log = logging.getLogger("imgtx.train")

CHECKPOINT = "checkpoint.pt"


@dataclass
class Progress:
    """How far a training is; part of the checkpoint."""

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    # Losses since the last report.
    losses: list[float] = field(default_factory=list)
    # name, digest and steps of the weights that the training began with; empty where it began with none
    started_from: dict[str, Any] = field(default_factory=dict)


class WorkerGroup(Protocol):
    """The processes that train one network together, as one of them sees it. One of them leads."""

    # The leader validates, reports and writes.
    is_leader: bool

    def wrap(self, network: nn.Module) -> Callable[..., Tensor]:
        """Return the network's forward pass, whose backward pass averages gradients over all processes."""

    def share(self, crops: int, batch: int) -> float:
        """Return the weight of the mean over `crops` of a batch, so that the average over all is the batch's mean."""

    def mean(self, values: Tensor) -> Tensor:
        """Return the average over all processes."""

    def checkpoint(self, training: "Training") -> None:
        """Save the training; all processes call it."""


class SingleProcess:
    """A group of one process."""

    is_leader = True

    def wrap(self, network: nn.Module) -> Callable[..., Tensor]:
        return network

    def share(self, crops: int, batch: int) -> float:
        return 1.0

    def mean(self, values: Tensor) -> Tensor:
        return values

    def checkpoint(self, training: "Training") -> None:
        training.save()


class Training:
    """The state of one training: network, optimizer, weight average, progress."""

    def __init__(
        self,
        spec: Spec,
        folder: Path,
        device: str = "cpu",
        group: WorkerGroup | None = None,
        *,
        objective: Objective | None = None,
        first_weights: str = "",
    ):
        """first_weights: where `init_from` is on this machine, if that is elsewhere."""
        torch.manual_seed(spec.seed)
        self.objective: Objective = objective or default_objective(spec)
        self.group: WorkerGroup = group or SingleProcess()
        self.spec, self.folder, self.device = spec, folder, device
        self.network = self.objective.network().to(device)
        # One shape for thousands of steps pays for compiling on a GPU; on a CPU it is slower (LOG.md).
        wrapped = self.group.wrap(self.network)
        self.compute = torch.compile(wrapped) if torch.device(device).type == "cuda" else wrapped
        self.optimizer = optimizer_of(
            self.network, spec.optimizer, rate=spec.peak_lr, weight_decay=spec.weight_decay
        )
        self.progress = Progress()
        if spec.init_from and not self.checkpoint.exists():
            self.progress.started_from = warm_start(self.network, first_weights or spec.init_from)
        self.average = WeightAverage(self.network, spec.average)
        # During an update network, optimizer and average belong to different steps.
        self.mid_update = False
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.checkpoint)
        remove_leftovers(self.weights)
        if self.checkpoint.exists():
            self.resume()

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    @property
    def weights(self) -> Path:
        return self.folder / f"{self.spec.name}.safetensors"

    @property
    def share(self) -> float:
        """How much of the training is done, in [0, 1]."""
        if self.spec.steps:
            return min(1.0, self.progress.step / self.spec.steps)
        return min(1.0, self.progress.seconds / (60 * self.spec.minutes))

    @property
    def rate(self) -> float:
        """The learning rate of the next update."""
        return learning_rate(self.share, peak=self.spec.peak_lr, constant_share=self.spec.constant_lr_share)

    def step(self, batch: Any) -> float:
        """Update the weights once; return the loss. ImgtxError if the loss or the gradient is not finite."""
        rate = self.rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.objective.loss(self.compute, batch, self.progress.step, self.device) * self.group.share(
            len(batch.keys), self.spec.batch
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.spec.clip)
        averages = self.group.mean(torch.stack([loss.detach(), norm.detach()]))
        # The only wait for the device.
        value, length = averages.tolist()
        self._check_finite("loss", value, batch)
        self._check_finite("gradient's norm", length, batch)
        self.mid_update = True
        self.optimizer.step()
        self.average.update(self.network, self.progress.step)
        self.progress.step += 1
        self.mid_update = False
        return value

    def trial(self, batch: Any) -> None:
        """Compute a step without an update, for the time it takes."""
        with torch.random.fork_rng(devices=[]):
            loss = self.objective.loss(self.compute, batch, self.progress.step, self.device)
            loss.backward()
        self.optimizer.zero_grad(set_to_none=True)

    def _check_finite(self, what: str, value: float, batch: Any) -> None:
        if not math.isfinite(value):
            raise ImgtxError(
                f"the {what} is {value} at step {self.progress.step}, images {', '.join(batch.keys)}: "
                f"lower peak_lr or clip, or check these images; the state before it is kept"
            )

    def save(self) -> None:
        """Write the checkpoint, whole or not at all; during an update the last one is kept."""
        if self.mid_update:
            log.warning("interrupted during an update; the last checkpoint is kept")
            return
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state,
            "progress": asdict(self.progress),
            "spec": asdict(self.spec),
            "config": asdict(self.network.config),
        }
        write_atomically(self.checkpoint, lambda part: torch.save(state, part), durable=True)

    def resume(self) -> None:
        try:
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            check_same(self.spec, state["spec"], str(self.folder))
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average.state = state["average"]
            self.progress = Progress(**state["progress"])
        except (RuntimeError, ValueError, KeyError, TypeError, OSError, EOFError, UnpicklingError) as error:
            complaint = " ".join(str(error).split())[:200] or "it ends early"
            raise UsageError(
                f"{self.checkpoint} does not fit this spec, or is damaged ({complaint}): "
                f"give another --folder, or remove the file to start over"
            ) from error
        log.info(
            "continuing at step %d, after %.1f minutes of training",
            self.progress.step,
            self.progress.seconds / 60,
        )

    def averaged(self) -> Network:
        """Return a new network on the CPU with the averaged weights."""
        network = self.objective.network()
        network.load_state_dict(self.average.state)
        return network.eval()

    def info(self) -> ModelInfo:
        """Return the facts that the weight file carries, and how it was trained."""
        spec, progress = self.spec, self.progress
        return replace(
            self.objective.facts(),
            training={
                "data": spec.data_note,
                "spec": asdict(spec),
                "started_from": progress.started_from,
                "steps": progress.step,
                "minutes": round(progress.seconds / 60, 1),
                "history": progress.history,
                "torch": torch.__version__,
            },
        )


def default_objective(spec: Spec) -> Objective:
    """Return the objective of a spec that needs nothing else to know it."""
    # What others learn depends on their pictures too.
    assert isinstance(spec, TrainSpec)
    return Restoring(spec)


def warm_start(network: Network, init_from: str) -> dict[str, Any]:
    """Copy every tensor that fits from other weights: for an x4 model from x2 all but the head.

    Where an embedding has more rows than there, the first ones are copied: new words come last. Returns what the model
    card says of them: name, digest, and the number of steps they were trained for.
    """
    model = load_model(init_from)
    source, own = model.network.state_dict(), network.state_dict()
    fitting = {name: t for name, t in source.items() if name in own and own[name].shape == t.shape}
    for name in (f"{module}.weight" for module, m in network.named_modules() if isinstance(m, nn.Embedding)):
        known, rows = source.get(name), own[name]
        if known is not None and len(known) < len(rows) and known.shape[1:] == rows.shape[1:]:
            fitting[name] = torch.cat([known, rows[len(known) :]])
    network.load_state_dict(own | fitting)
    log.info("warm start from %s: %d of %d tensors", init_from, len(fitting), len(own))
    return {"name": model.info.name, "digest": model.digest, "steps": model.info.training.get("steps", 0)}


def write_weights(training: Training) -> Path:
    """Write the averaged weights; the info in the file records how they were made."""
    save_weights(training.weights, training.averaged(), training.info())
    return training.weights
