"""Training: the loss falls, interruptions change nothing, non-finite values stop it, its weights load."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import imgtx
from imgtx.errors import ImgtxError, UsageError
from imgtx.imageops.metrics import psnr, psnr_y
from imgtx.inference.predictor import Predictor
from imgtx.models.weight_file import file_digest
from imgtx.models.weights import load_model
from imgtx.training import loop as train_loop
from imgtx.training.data.crops import Batch, CropSettings, Sampler
from imgtx.training.data.images import load_pairs
from imgtx.training.data.pairs import Pair
from imgtx.training.loop import train
from imgtx.training.optim import WeightAverage
from imgtx.training.restoration.losses import negative_psnr
from imgtx.training.restoration.restoring import mean_psnr, to_floats, validation_samples
from imgtx.training.spec import TrainSpec
from imgtx.training.state import Training, warm_start
from tests.support.zoo import saved

MODEL = {
    "dim": 16, "heads": 1, "window": 4, "encoder_blocks": 1, "decoder_blocks": 1,
    "detail_channels": 4, "detail_blocks": 1, "ffn_ratio": 1.0,
}  # fmt: skip


class Clock:
    """Counts its calls: every step takes one second on any machine."""

    def __init__(self) -> None:
        self.seconds = 0

    def __call__(self) -> float:
        self.seconds += 1
        return float(self.seconds)


class Reports(list):
    """Collects reports; raises `stop_with` at the report number `stop_at`."""

    def __init__(self, stop_at: int | None = None, stop_with: BaseException | None = None):
        super().__init__()
        self.stop_at, self.stop_with = stop_at, stop_with or KeyboardInterrupt()

    def __call__(self, values: dict[str, Any]) -> None:
        self.append(values)
        if len(self) == self.stop_at:
            raise self.stop_with


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> TrainSpec:
    """Sixty steps of a second on two images of sharp squares; validation after 25 and 50, a checkpoint after 30."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(2):
        squares = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
        (folder / f"{number}.png").write_bytes(saved(squares.repeat(4, 0).repeat(4, 1)))
    return TrainSpec(
        "tiny", str(folder), str(folder), minutes=1, batch=2, crop=8, precision="float32", average=0.9,
        validate_minutes=25 / 60, checkpoint_minutes=0.5, valid_images=1, model=MODEL,
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def report_every_20_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_loop, "REPORT_STEPS", 20)
        yield


@pytest.fixture(scope="module")
def done(spec, tmp_path_factory) -> tuple[Path, Reports]:
    """Return the folder of one uninterrupted training, and its reports."""
    folder, reports = tmp_path_factory.mktemp("done"), Reports()
    assert train(spec, folder, reports, clock=Clock()) == folder / "tiny.safetensors"
    return folder, reports


def sample_batch(pairs: list[Pair], *, seed: int, step: int, batch: int, crop: int) -> Batch:
    return Sampler(pairs, CropSettings(crop), seed=seed, batch=batch).batch(step)


def state_of(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def assert_equal_states(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["progress"] == other["progress"]
    for part in ("network", "average"):
        assert all(torch.equal(t, other[part][name]) for name, t in one[part].items()), part
    moments = zip(one["optimizer"]["state"].values(), other["optimizer"]["state"].values(), strict=True)
    assert all(torch.equal(a[name], b[name]) for a, b in moments for name in a)


def test_training_reports_and_its_loss_falls(done):
    _, reports = done
    losses = [r["loss"] for r in reports if "loss" in r]
    assert [r["step"] for r in reports] == [20, 25, 40, 50, 60, 60]
    assert losses[-1] < losses[0]
    assert reports[-1]["minutes"] == reports[-1]["done"] == 1
    scores = [r["valid_psnr_y"] for r in reports if "valid_psnr_y" in r]
    assert scores[-1] > scores[0]


@pytest.mark.parametrize("stop_at", [1, 2, 4])
def test_interrupted_and_resumed_equals_uninterrupted(spec, done, tmp_path, stop_at):
    with pytest.raises(KeyboardInterrupt):
        train(spec, tmp_path, Reports(stop_at), clock=Clock())
    stopped = state_of(tmp_path)["progress"]["step"]
    assert stopped == done[1][stop_at - 1]["step"]
    train(spec, tmp_path, Reports(), clock=Clock())
    assert_equal_states(state_of(tmp_path), state_of(done[0]))
    name = "tiny.safetensors"
    assert (tmp_path / name).read_bytes() == (done[0] / name).read_bytes()


def test_resuming_with_muon_equals_an_uninterrupted_training(spec, tmp_path):
    muon = replace(spec, optimizer="muon", loss="psnr", clip=100.0)
    train(muon, tmp_path / "whole", Reports(), clock=Clock())
    with pytest.raises(KeyboardInterrupt):
        train(muon, tmp_path / "stopped", Reports(2), clock=Clock())
    train(muon, tmp_path / "stopped", Reports(), clock=Clock())
    one, other = ((tmp_path / name / "tiny.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert one == other
    with pytest.raises(UsageError, match="optimizer = 'muon', now 'adamw'"):
        train(spec, tmp_path / "stopped", Reports(), clock=Clock())


def test_a_stop_during_an_update_resumes_from_the_last_checkpoint(spec, done, tmp_path, monkeypatch):
    """Network and optimizer are a step ahead of the average then: saving them would change the training."""
    update = WeightAverage.update

    def interrupted(self: WeightAverage, network: torch.nn.Module, step: int) -> None:
        if step == 37:
            raise KeyboardInterrupt
        update(self, network, step)

    monkeypatch.setattr(WeightAverage, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(spec, tmp_path, Reports(), clock=Clock())
    assert state_of(tmp_path)["progress"]["step"] == 30
    monkeypatch.setattr(WeightAverage, "update", update)
    train(spec, tmp_path, Reports(), clock=Clock())
    assert_equal_states(state_of(tmp_path), state_of(done[0]))


def test_rerunning_a_finished_training_changes_nothing(spec, done):
    folder, _ = done
    before = (folder / "tiny.safetensors").read_bytes()
    reports = Reports()
    train(spec, folder, reports, clock=Clock())
    assert [r["step"] for r in reports] == [60]
    assert (folder / "tiny.safetensors").read_bytes() == before


def test_the_weights_are_the_average_and_record_their_training(spec, done):
    folder, _ = done
    model = load_model(folder / "tiny.safetensors")
    average, network = state_of(folder)["average"], state_of(folder)["network"]
    saved_state = model.network.state_dict()
    assert all(torch.equal(t, saved_state[name]) for name, t in average.items())
    assert not all(torch.equal(t, saved_state[name]) for name, t in network.items())
    info = model.info
    assert (info.name, info.scale, info.multiple, info.halo) == ("tiny", 2, 8, 16)
    assert info.training["steps"] == 60
    assert info.training["spec"]["seed"] == spec.seed
    assert [h["step"] for h in info.training["history"]] == [25, 50, 60]
    assert json.loads((folder / "spec.json").read_text())["name"] == "tiny"


def test_validation_uses_the_production_path(spec, done):
    folder, reports = done
    (pair,) = load_pairs(Path(spec.valid), 2, smallest=8, most=1)
    predictor = imgtx.load(folder / "tiny.safetensors", device="cpu")
    score = psnr_y(predictor(pair.small), pair.clean, crop=2)
    assert mean_psnr(validation_samples(predictor, [pair])) == pytest.approx(score)
    assert reports[-1]["valid_psnr_y"] == round(score, 3)


def test_validation_accepts_any_size_and_restores_training_mode(spec, tmp_path):
    training = Training(spec, tmp_path)
    (pair,) = load_pairs(Path(spec.valid), 2, smallest=8, most=1)
    odd = replace(pair, small=pair.small[:21, :13], clean=pair.clean[:42, :26])
    training.network.train()
    model = load_model("sr-x2")
    assert mean_psnr(validation_samples(Predictor(model), [odd])) > 15
    assert training.network.training


def test_another_seed_gives_another_model(spec, tmp_path):
    one, other = (Training(replace(spec, seed=s), tmp_path / str(s)).network.embed.weight for s in (0, 1))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("where", ["loss", "gradient's norm"])
def test_a_non_finite_loss_stops_with_its_step_and_images(spec, tmp_path, where):
    training = Training(spec, tmp_path)
    pairs = load_pairs(Path(spec.train), 2, smallest=8)
    batch = sample_batch(pairs, seed=0, step=0, batch=2, crop=8)
    training.step(batch)
    before = {name: t.clone() for name, t in training.network.state_dict().items()}
    if where == "loss":
        training.network.head.register_forward_hook(lambda module, inputs, output: output * float("nan"))
    else:
        training.network.head.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(ImgtxError) as caught:
        training.step(batch)
    message = str(caught.value)
    assert message.startswith(f"the {where} is ")
    assert "at step 1" in message
    assert all(key in message for key in batch.keys)
    assert all(torch.equal(t, before[name]) for name, t in training.network.state_dict().items())


def test_the_psnr_loss_equals_the_metric_and_a_perfect_crop_has_no_gradient():
    rng = np.random.default_rng(0)
    clean = rng.integers(40, 215, (2, 12, 10, 3), np.uint8)
    damaged = clean.copy()
    damaged[0] += 1
    damaged[1] += 20
    output = to_floats(damaged, "cpu").requires_grad_()
    loss = negative_psnr(output, to_floats(clean, "cpu"))
    assert loss.item() == pytest.approx(-np.mean([psnr(clean[i], damaged[i]) for i in (0, 1)]), abs=2)
    assert loss.item() == pytest.approx(-np.mean([-10 * np.log10((d / 255) ** 2 + 1e-5) for d in (1, 20)]))
    loss.backward()
    weak, strong = output.grad.abs().mean((1, 2, 3))
    # The gradient of the plain mean square would be twenty times as large at the other.
    assert weak > strong
    perfect = to_floats(clean, "cpu").requires_grad_()
    negative_psnr(perfect, to_floats(clean, "cpu")).backward()
    assert not perfect.grad.any()


def test_the_learning_rate_follows_the_elapsed_share_of_time(spec, tmp_path):
    training = Training(spec, tmp_path)
    pairs = load_pairs(Path(spec.train), 2, smallest=8)
    rates = []
    for seconds in (0.6, 30, 60, 500):
        training.progress.seconds = seconds
        training.step(sample_batch(pairs, seed=0, step=0, batch=1, crop=8))
        rates.append(training.optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(spec.peak_lr / 2)
    assert rates[0] < rates[1] < spec.peak_lr
    assert rates[2] == rates[3] == pytest.approx(spec.peak_lr / 100)
    held = Training(replace(spec, constant_lr_share=0.6), tmp_path / "held")
    held.progress.seconds = 30
    held.step(sample_batch(pairs, seed=0, step=0, batch=1, crop=8))
    assert held.optimizer.param_groups[0]["lr"] == pytest.approx(spec.peak_lr)


def test_a_training_counted_in_steps_does_not_depend_on_the_clock(spec, tmp_path):
    counted = replace(spec, minutes=0.0, steps=12)
    for folder, clock in (("a", Clock()), ("b", None)):
        train(counted, tmp_path / folder, Reports(), clock=clock)
    one, other = state_of(tmp_path / "a"), state_of(tmp_path / "b")
    assert one["progress"]["step"] == other["progress"]["step"] == 12
    assert all(torch.equal(t, other["average"][name]) for name, t in one["average"].items())


@pytest.mark.parametrize("change", [{"seed": 9}, {"peak_lr": 1e-4}, {"batch": 3}])
def test_a_training_resumes_only_with_its_own_spec(spec, tmp_path, change):
    Training(spec, tmp_path).save()
    (name,) = change
    with pytest.raises(UsageError, match=f"began with {name} = .*, now .*train in another folder"):
        Training(replace(spec, **change), tmp_path)
    Training(replace(spec, minutes=2, constant_lr_share=0.5, train="moved", checkpoint_minutes=9), tmp_path)


def test_a_checkpoint_without_a_newer_field_resumes_with_its_default(spec, tmp_path):
    Training(spec, tmp_path).save()
    state = state_of(tmp_path)
    for name in ("degradation", "crop_choice", "procedural_share", "damage"):
        del state["spec"][name]
    torch.save(state, tmp_path / "checkpoint.pt")
    Training(spec, tmp_path)
    with pytest.raises(UsageError, match="began with degradation = 'bicubic', now 'archive'"):
        Training(replace(spec, degradation="archive"), tmp_path)


def test_an_archive_model_is_validated_on_damaged_images(spec, tmp_path):
    """The first score, of bicubic itself, falls when the validation images are damaged."""
    short = replace(spec, minutes=0.0, steps=1, peak_lr=1e-9)
    scores = {}
    for degradation in ("bicubic", "archive"):
        reports = Reports()
        train(replace(short, degradation=degradation), tmp_path / degradation, reports)
        scores[degradation] = reports[-1]["valid_psnr_y"]
    assert scores["archive"] < scores["bicubic"] - 1


def test_the_weights_record_their_initial_model(spec, done, tmp_path):
    weights = done[0] / "tiny.safetensors"
    Training(replace(spec, init_from=str(weights)), tmp_path).save()
    resumed = Training(replace(spec, init_from=str(weights)), tmp_path)
    began = resumed.info().training["started_from"]
    assert began == {"name": "tiny", "digest": file_digest(weights), "steps": 60}


def test_a_warm_start_copies_all_but_the_head(spec, done, tmp_path):
    weights = done[0] / "tiny.safetensors"
    larger = replace(spec, scale=4, init_from=str(weights))
    training = Training(larger, tmp_path)
    source, own = load_model(weights).network.state_dict(), training.network.state_dict()
    copied = {
        name for name, t in own.items() if t.shape == source[name].shape and torch.equal(t, source[name])
    }
    assert set(own) - copied == {"head.weight", "head.bias"}
    assert all(torch.equal(t, own[name]) for name, t in training.average.state.items())
    training.save()
    # Resumed: the first weights are not needed.
    Training(replace(larger, init_from="gone.safetensors"), tmp_path)


def test_a_warm_start_from_a_missing_model_is_a_usage_error(spec, tmp_path):
    with pytest.raises(UsageError, match="no weight file"):
        warm_start(Training(spec, tmp_path).network, "gone.safetensors")


def test_a_checkpoint_of_another_network_or_a_broken_one_is_refused(spec, tmp_path):
    Training(spec, tmp_path).save()
    with pytest.raises(UsageError, match="began with model = "):
        Training(replace(spec, model=MODEL | {"dim": 32}), tmp_path)
    checkpoint = tmp_path / "checkpoint.pt"
    whole = checkpoint.read_bytes()
    for damaged in (b"", b"no checkpoint", whole[: len(whole) // 2]):
        checkpoint.write_bytes(damaged)
        with pytest.raises(UsageError, match="does not fit this spec, or is damaged") as caught:
            Training(spec, tmp_path)
        assert "\n" not in str(caught.value)


def test_a_crop_larger_than_the_images_fails_before_the_first_step(spec, tmp_path):
    reports = Reports()
    with pytest.raises(UsageError, match="a crop of 40 px needs 80 px"):
        train(replace(spec, crop=40), tmp_path / "folder", reports, clock=Clock())
    assert reports == []
    assert not (tmp_path / "folder").exists()
