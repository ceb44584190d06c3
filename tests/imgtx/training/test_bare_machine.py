"""Training on a bare machine: imports, the packed file, crops cut on the device, one run end to end."""

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgtx.degradations.archive import ARCHIVE
from imgtx.errors import UsageError
from imgtx.models.weights import load_model
from imgtx.training.__main__ import main
from imgtx.training.data.crops import CropSettings, Sampler
from imgtx.training.data.device_feed import DeviceFeed
from imgtx.training.data.images import load_pairs
from imgtx.training.data.packed import TRAIN, VALID, pack, unpack
from imgtx.training.data.pairs import make_pair
from imgtx.training.feeds import PrefetchingFeed
from tests.support.archive import TINY_NETWORK
from tests.support.source_tree import LAYERS, ROOT, imports, packages, source_modules
from tests.support.zoo import exif_block, photo, saved

SPECS = ROOT / "jobs" / "specs"
BARE = {"torch", "numpy", "PIL", "safetensors"}
SPEC = f"""
name = "tiny"
train = "x"
valid = "x"
steps = 4
batch = 2
crop = 8
precision = "float32"
{TINY_NETWORK}"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> tuple[Path, Path]:
    """Return a folder of images of several kinds, and the file packed from it for training and validation."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "b").mkdir()
    (folder / "a.png").write_bytes(saved(photo(40, 60)))
    (folder / "b" / "turned.jpg").write_bytes(saved(photo(40, 60), "JPEG", exif=exif_block(6, 60, 40)))
    (folder / "c.webp").write_bytes(saved(photo(48, 48), "WEBP", lossless=True))
    Image.fromarray(photo(40, 50, 1).astype(np.uint16) * 257).save(folder / "deep.png")
    file = tmp_path_factory.mktemp("packed") / "photos.zip"
    assert pack(folder, folder, file, valid_images=2) == file.stat().st_size
    return folder, file


def test_training_imports_only_torch_numpy_pillow_and_safetensors():
    """Imports are followed through the project's own files; late imports serve other commands."""
    sources = {module.name: module for module in source_modules()}
    waiting, seen, foreign = ["imgtx.training.__main__"], set(), set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in sources:
            continue
        seen.add(name)
        for found in imports(sources[name].tree, lazy=False):
            (waiting.append(found) if found.split(".")[0] in LAYERS else foreign.update(packages({found})))
    assert {
        "imgtx.training.loop",
        "imgtx.inference.predictor",
        "imgtx.models.weights",
        "imgtx.training.data.crops",
    } <= seen
    assert foreign <= BARE | sys.stdlib_module_names


def test_unpacking_gives_the_images_of_the_folders(packed):
    folder, file = packed
    for before, after in zip(
        load_pairs(folder, 2, smallest=8), unpack(file, TRAIN, 2, smallest=8), strict=True
    ):
        assert before.key == after.key
        assert np.array_equal(before.clean, after.clean)
        assert np.array_equal(before.small, after.small)
    assert [pair.key for pair in unpack(file, VALID, 2, smallest=8)] == ["a.png", "b/turned.jpg"]


def test_files_that_pillow_reads_identically_are_packed_unchanged(packed, tmp_path):
    folder, file = packed
    with zipfile.ZipFile(file) as opened:
        assert opened.read("train/c.webp") == (folder / "c.webp").read_bytes()
        assert opened.read("train/b/turned.jpg") != (folder / "b" / "turned.jpg").read_bytes()
    pack(folder, folder, tmp_path / "again.zip", valid_images=2)
    assert (tmp_path / "again.zip").read_bytes() == file.read_bytes()


def test_a_packed_file_keeps_to_a_size(packed, tmp_path, caplog):
    folder, whole = packed
    small, most = tmp_path / "small.zip", whole.stat().st_size - 1
    assert pack(folder, folder, small, valid_images=1, max_bytes=most) <= most
    with zipfile.ZipFile(small) as file:
        kept = file.namelist()
    pack(folder, folder, small, valid_images=1)
    with zipfile.ZipFile(small) as file:
        everything = file.namelist()
    size = small.stat().st_size
    assert set(kept) <= set(everything)
    # To the byte.
    assert pack(folder, folder, small, valid_images=1, max_bytes=size) == size
    assert pack(folder, folder, small, valid_images=1, max_bytes=size - 1) < size - 1
    assert "left out 1 of 4 images of" in caplog.text
    with pytest.raises(UsageError, match="no room for an image of"):
        pack(folder, folder, small, valid_images=1, max_bytes=100)


def test_the_trainings_for_a_gpu_follow_each_other(packed, tmp_path, monkeypatch):
    """As the guide says, but on a CPU, for one step each: sr-x2, sr-x4 from it, restore."""
    monkeypatch.chdir(tmp_path)
    small = ["steps=1", "minutes=0", "batch=1", "crop=16", "precision=float32", "valid_images=1"]
    for name, begun_with in (("sr-x2", "sr-x2"), ("sr-x4", "sr-x2"), ("restore", "restore")):
        spec = SPECS / f"{name}-gpu.toml"
        settings = small if name != "sr-x4" else [*small, "crop=8", "model.window=4"]
        arguments = [part for setting in settings for part in ("--set", setting)]
        assert main(["train", str(spec), str(packed[1]), "--device", "cpu", *arguments]) == 0
        info = load_model(tmp_path / "runs" / name / f"{name}.safetensors").info
        assert (info.training["steps"], info.training["started_from"]["name"]) == (1, begun_with)


def test_an_unusable_packed_file_is_one_line(packed, tmp_path):
    _, file = packed
    broken = tmp_path / "broken.zip"
    broken.write_bytes(file.read_bytes()[:3000])
    for path, part, smallest, named in (
        (broken, TRAIN, 8, "not a whole packed file"),
        (tmp_path / "none.zip", TRAIN, 8, "not a whole packed file"),
        (file, "else/", 8, "contains no images under else/"),
        (file, TRAIN, 32, "4 too small; .* at scale 2 a crop of 32 px needs 64 px"),
    ):
        with pytest.raises(UsageError, match=named) as caught:
            unpack(path, part, 2, smallest=smallest)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("choice", ["higher_gradient", "energy"])
@pytest.mark.parametrize("scale", [2, 3])
def test_crops_cut_on_the_device_equal_those_of_the_host(scale, choice):
    pairs = [make_pair(str(n), photo(20 * scale + n, 24 * scale - n), scale) for n in range(3)]
    sampler = Sampler(pairs, CropSettings(12, choice), seed=2, batch=32)
    assert DeviceFeed.fits(sampler)
    host, device = sampler.batch(5), DeviceFeed(sampler, "cpu").batch(5)
    assert device.keys == host.keys
    assert np.array_equal(device.small.numpy(), host.small)
    assert np.array_equal(device.clean.numpy(), host.clean)
    assert not DeviceFeed.fits(Sampler(pairs, CropSettings(12, degradation=ARCHIVE), seed=2, batch=4))
    assert not DeviceFeed.fits(Sampler(pairs, CropSettings(12, procedural_share=0.1), seed=2, batch=4))


def test_prefetched_batches_are_the_same_in_the_same_order():
    sampler = Sampler(
        [make_pair("a", photo(60, 64), 2)], CropSettings(16, degradation=ARCHIVE), seed=4, batch=3
    )
    ahead = PrefetchingFeed(sampler, threads=3)
    for step in (10, 11, 12, 13, 40, 41):
        assert np.array_equal(ahead.batch(step).small, sampler.batch(step).small)


def test_a_training_runs_end_to_end(packed, tmp_path, capsys):
    spec, folder = tmp_path / "tiny.toml", tmp_path / "run"
    spec.write_text(SPEC)
    arguments = ["train", str(spec), str(packed[1]), "--folder", str(folder), "--device", "cpu"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(folder / "tiny.safetensors")
    assert {"checkpoint.pt", "log.jsonl", "curves.png", "strip.png"} <= {p.name for p in folder.iterdir()}
    assert main([*arguments, "--set", "batch=3"]) == 2
    assert "began with batch = 2, now 3" in capsys.readouterr().err
    assert main(["train", str(spec), str(tmp_path / "none.zip")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
