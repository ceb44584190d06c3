"""Hostile files: none of their code runs, and no size they claim is allocated."""

import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from imgtx.errors import ModelError
from imgtx.models.adapters.checkpoint import read_checkpoint
from imgtx.models.references import load_model, read_info
from tests.conformance.conftest import without_spandrel


class Touch:
    """Writes a file if it is unpickled without restrictions."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("form", ["zip", "legacy", "bare", "bare-4"])
def test_code_in_a_pickle_does_not_run(tmp_path, form):
    path, mark = tmp_path / "evil.pth", tmp_path / "ran"
    content = {"weight": torch.zeros(2), "extra": Touch(mark)}
    if form.startswith("bare"):
        path.write_bytes(pickle.dumps(Touch(mark), protocol=4 if form == "bare-4" else 2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    assert "posix.system, which would run code; nothing was run" in refusal(path)
    assert "save its state_dict() as .safetensors" in refusal(path)
    assert not mark.exists()


@without_spandrel
def test_code_in_a_pickle_does_not_run_when_the_model_is_resolved(tmp_path):
    """spandrel has an unpickler of its own; it never sees the file."""
    path = tmp_path / "evil.pth"
    torch.save({"weight": Touch(tmp_path / "ran")}, path)
    for read in (load_model, read_info):
        with pytest.raises(ModelError, match="nothing was run"):
            read(path)
    assert not (tmp_path / "ran").exists()


def test_a_pickled_network_is_refused_as_code(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "network.pth")
    assert "torch.nn.modules.linear.Linear" in refusal(tmp_path / "network.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_tensor_that_repeats_its_bytes_is_refused(tmp_path, legacy):
    """A terabyte by shape, four bytes in the file."""
    path = tmp_path / "claims.pth"
    torch.save({"weight": torch.zeros(1).expand(2**38)}, path, _use_new_zipfile_serialization=not legacy)
    assert path.stat().st_size < 5000
    assert "more than a file of" in refusal(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_storage_larger_than_the_file_is_refused_before_it_is_allocated(tmp_path, legacy):
    honest, path = tmp_path / "honest.pth", tmp_path / "claims.pth"
    # As a pickled number, four bytes that occur nowhere else.
    count = 70_000
    torch.save({"weight": torch.zeros(count)}, honest, _use_new_zipfile_serialization=not legacy)
    before, after = struct.pack("<i", count), struct.pack("<i", 2**31 - 1)
    if legacy:
        data = honest.read_bytes()
        assert before in data
        path.write_bytes(data.replace(before, after))
    else:
        with zipfile.ZipFile(honest) as source, zipfile.ZipFile(path, "w") as target:
            for name in source.namelist():
                data = source.read(name)
                target.writestr(name, data.replace(before, after) if name.endswith("data.pkl") else data)
    assert "more than a file of" in refusal(path)


def test_a_record_that_unpacks_beyond_the_files_size_is_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    assert "a record is more than a file of" in refusal(path)


def test_an_absurd_block_number_is_refused(tmp_path):
    """Networks are built block by block up to the highest number in a name."""
    path = tmp_path / "blocks.safetensors"
    save_file({f"layers.{10**9}.weight": torch.zeros(1)}, path)
    assert "block 1000000000" in refusal(path)


@pytest.mark.parametrize("cut", [0, 1, 20, 400, -1, -30])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_one_line(tmp_path, form, cut):
    path = tmp_path / ("cut.safetensors" if form == "safetensors" else "cut.pth")
    tensors = {"weight": torch.rand(40, 40), "bias": torch.rand(40)}
    if form == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "zip")
    path.write_bytes(path.read_bytes()[:cut])
    assert "whole" in refusal(path)


@pytest.mark.parametrize("content", [b"not a model", b"\x80\x04N.", b"{}", b"PK\x05\x06" + bytes(18)])
def test_a_file_that_is_not_a_checkpoint_is_one_line(tmp_path, content):
    path = tmp_path / "text.pth"
    path.write_bytes(content)
    refusal(path)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], torch.zeros(3)])
def test_a_checkpoint_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "empty.pth")
    assert "no tensors by name" in refusal(tmp_path / "empty.pth")


def test_a_torchscript_archive_is_never_taken_for_weights(tmp_path):
    path = tmp_path / "program.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    message = refusal(path)
    assert "a program and not weights" in message
    assert "torchscript:" in message


@without_spandrel
def test_tensors_of_an_unknown_architecture_are_named(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file({"my.own.weight": torch.zeros(3)}, path)
    with pytest.raises(
        ModelError, match=r"no architecture with these tensors \(the first are my\.own\.weight\)"
    ):
        load_model(path)


@without_spandrel
def test_tensors_that_contradict_their_architecture_are_one_line(references, tmp_path):
    tensors = torch.load(references("Compact"), weights_only=True)["params_ema"]
    tensors["body.0.weight"] = torch.zeros(8, 3, 5, 5)
    torch.save(tensors, tmp_path / "odd.pth")
    with pytest.raises(ModelError, match="does not fit its own architecture"):
        load_model(tmp_path / "odd.pth")
