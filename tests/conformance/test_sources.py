"""Model references: what --model takes, what is read without torch, what a sidecar is bound to."""

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import imgtx
from imgtx.errors import ModelError, UsageError
from imgtx.models.adapters.spandrel import convert
from imgtx.models.adapters.torchscript import read_signature
from imgtx.models.references import absolute, digest_of, find_source, load_model, read_info
from imgtx.models.sidecar import read_sidecar, sidecar_path, write_sidecar
from jobs.models.probe import describe
from pipeline.job import make_job
from pipeline.spec import RunSpec
from tests.conformance.architectures import save
from tests.conformance.conftest import save_torchscript, without_spandrel
from tests.support.small_models import noise


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    return save("Compact", tmp_path)


def test_each_reference_resolves_to_its_model(tmp_path, references):
    assert find_source("sr-x2").kind == "imgtx"
    assert find_source(references("own")).kind == "imgtx"
    (tmp_path / "m.pth").touch()
    assert find_source(tmp_path / "m.pth").kind == "spandrel"
    assert find_source(f"spandrel:{tmp_path}/m.pth").path == tmp_path / "m.pth"
    (tmp_path / "config.json").write_text("{}")
    assert find_source(tmp_path).kind == "transformers"
    program = find_source(f"torchscript:{tmp_path}/m.pth?scale=2&range=255")
    assert (program.kind, program.declared) == ("torchscript", {"range": "255", "scale": "2"})


@pytest.mark.parametrize(
    "reference", ["no.pth", "spandrel:no.pth", "torchscript:no.pt?scale=2", "transformers:no"]
)
def test_a_missing_model_is_a_usage_error(reference):
    with pytest.raises(UsageError, match=r"no model (file|folder) at no"):
        find_source(reference)


def test_portable_references_resolve_alike_on_every_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.pth").touch()
    assert absolute("m.pth") == f"{tmp_path}/m.pth"
    assert absolute("spandrel:m.pth") == f"spandrel:{tmp_path}/m.pth"
    assert absolute("torchscript:m.pth?scale=2") == f"torchscript:{tmp_path}/m.pth?scale=2"
    assert absolute("sr-x2") == "sr-x2"


def test_a_path_of_dots_is_a_folder(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    assert sidecar_path(Path(".")) == tmp_path / "inner.imgtx.json"
    assert sidecar_path(Path("..")) == tmp_path.parent / f"{tmp_path.name}.imgtx.json"
    for here in (".", "transformers:."):
        with pytest.raises(UsageError, match=r"config\.json cannot be read|unknown model"):
            read_info(here)


def test_an_unknown_suffix_is_answered_with_the_prefixes_to_use(tmp_path):
    (tmp_path / "m.weights").touch()
    with pytest.raises(
        UsageError, match=r"write spandrel:.*m\.weights for .* torchscript:.*m\.weights\?scale=N"
    ):
        find_source(tmp_path / "m.weights")


@without_spandrel
def test_a_licence_is_shown_if_the_file_names_it(tmp_path, foreign):
    from safetensors.torch import load_file, save_file

    assert load_model(foreign).info.licence == "unknown"
    tensors = load_file(save("Compact", tmp_path, ".safetensors"))
    for metadata, licence in [
        ({"license": "CC-BY-4.0"}, "CC-BY-4.0"),
        ({"modelspec.license": "MIT\n\x1b[2J", "license": "other"}, "MIT [2J"),
        ({"format": "pt"}, "unknown"),
    ]:
        path = tmp_path / "described.safetensors"
        save_file(tensors, path, metadata=metadata)
        assert load_model(path).info.licence == licence
        convert(path, tmp_path / "converted.safetensors")
        assert load_model(tmp_path / "converted.safetensors").info.licence == licence


def test_show_prints_the_same_fields_for_every_kind_of_model(references, kind):
    facts = describe(references(kind))
    assert facts["model"]["architecture"]
    assert facts["model"]["parameters"] >= 0
    assert set(facts["model"]["size_rules"]) == {"minimum", "multiple_of", "square"}
    assert {"scale", "in_channels", "out_channels", "dtypes", "licence", "digest"} <= set(facts)


@without_spandrel
def test_the_same_tensors_in_two_formats_are_the_same_model(tmp_path):
    pth, safe = save("Compact", tmp_path), save("Compact", tmp_path, ".safetensors")
    image = noise(9, 12, 3)
    np.testing.assert_array_equal(imgtx.load(pth, device="cpu")(image), imgtx.load(safe, device="cpu")(image))
    assert read_info(pth)[1] != read_info(safe)[1]


@without_spandrel
def test_two_models_under_one_name_never_mix(tmp_path, foreign):
    (tmp_path / "other").mkdir()
    other = save("SPAN", tmp_path / "other").rename(tmp_path / "other" / foreign.name)
    spec = RunSpec("in", "out", model=str(foreign))
    recipes = {make_job(spec, *read_info(path)).recipe.digest for path in (foreign, other)}
    assert len(recipes) == 2


@without_spandrel
def test_a_probed_model_is_planned_without_torch(foreign):
    """The plan uses the measured values, not the defaults."""
    info, digest = read_info(foreign)
    measured = replace(info, halo=16, dtypes=("float32", "bfloat16"), fast="bfloat16", batches=True)
    write_sidecar(foreign, digest, measured, {})
    code = (
        "import sys\nfrom imgtx.models.references import read_info\n"
        f"info, _ = read_info({str(foreign)!r})\n"
        "assert (info.halo, info.fast) == (16, 'bfloat16'), info\n"
        "assert not {'torch', 'spandrel'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert load_model(foreign).info == measured


@without_spandrel
def test_a_model_without_a_probe_says_so(foreign, caplog):
    with caplog.at_level(logging.WARNING):
        info, _ = read_info(foreign)
    assert "was never probed" in caplog.text
    assert (info.dtypes, info.batches) == (("float32",), False)


@without_spandrel
@pytest.mark.parametrize("damage", ["another digest", "{", "[]", '{"digest": 1}', "another version"])
def test_a_sidecar_of_another_model_is_ignored_with_a_warning(foreign, caplog, damage):
    info, digest = read_info(foreign)
    path = write_sidecar(foreign, digest, replace(info, halo=16), {})
    record = json.loads(path.read_text())
    changes = {"another digest": {"digest": "0" * 64}, "another version": {"version": 99}}
    path.write_text(json.dumps(record | changes[damage]) if damage in changes else damage)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert read_sidecar(foreign, digest) is None
    assert "is ignored" in caplog.text
    assert sidecar_path(foreign) == path


@without_spandrel
def test_a_worker_without_the_sidecar_uses_what_the_driver_read(foreign):
    measured = replace(read_info(foreign)[0], dtypes=("float32", "bfloat16"), halo=16)
    predictor = imgtx.load(foreign, device="cpu", precision="bfloat16", info=measured)
    assert predictor.info.halo == 16
    with pytest.raises(ModelError, match="probe it again"):
        load_model(foreign, replace(measured, scale=4))


@without_spandrel
def test_the_probes_precision_enters_the_recipe(foreign):
    info, digest = read_info(foreign)
    fast = replace(info, dtypes=("float32", "bfloat16"), fast="bfloat16")
    spec = RunSpec("in", "out", model=str(foreign), precision="auto")
    jobs = [make_job(spec, i, digest) for i in (info, fast)]
    assert [job.recipe.precision for job in jobs] == ["float32", "bfloat16"]
    assert jobs[0].recipe.digest != jobs[1].recipe.digest
    # a halo changes pixels by less than 1/255; an image that is no longer tiled changes more
    same = make_job(spec, replace(info, halo=64), digest).recipe.digest
    assert same == jobs[0].recipe.digest
    assert make_job(spec, replace(info, untiled=10**6), digest).recipe.digest != same


@without_spandrel
@pytest.mark.parametrize("name", ["DnCNN", "SwinIR-1x"])
def test_restoration_models_restore_and_do_not_upscale(references, name):
    info, digest = read_info(references(name))
    with pytest.raises(UsageError, match="is for restoration, this command does super-resolution"):
        make_job(RunSpec("in", "out", model=references(name)), info, digest)
    assert make_job(RunSpec("in", "out", "restoration", references(name)), info, digest).info.scale == 1


def test_a_programs_signature_is_part_of_its_digest(tmp_path):
    reference = save_torchscript(tmp_path / "sharpen.ts")
    assert digest_of(find_source(reference)) == digest_of(find_source(reference))
    assert digest_of(find_source(reference)) != digest_of(find_source(reference.replace("255", "1")))


@pytest.mark.parametrize(
    ("declared", "complaint"),
    [
        ({}, "no signature: expected"),
        ({"channels": "3"}, "channels=3: expected torchscript"),
        ({"scale": "2", "colour": "3"}, "expected torchscript"),
        ({"scale": "two"}, "scale=two: expected a whole number"),
        ({"scale": "0"}, "scale=0: expected a whole number"),
        ({"scale": "2", "range": "100"}, "range=100: expected 1 or 255"),
    ],
)
def test_an_impossible_signature_is_one_line(declared, complaint):
    with pytest.raises(UsageError, match=complaint.replace("(", r"\(")) as caught:
        read_signature(declared, Path("x.ts"))
    assert "\n" not in str(caught.value)


def test_a_program_with_an_unsupported_number_of_channels_is_refused(tmp_path):
    reference = save_torchscript(tmp_path / "sharpen.ts")
    with pytest.raises(ModelError, match="takes 6 channels and returns 6"):
        load_model(f"{reference}&channels=6")


def test_a_broken_program_is_one_line(tmp_path):
    (tmp_path / "x.ts").write_bytes(b"PK nothing")
    with pytest.raises(ModelError, match="not a whole TorchScript archive"):
        load_model(f"torchscript:{tmp_path}/x.ts?scale=2")


@pytest.mark.parametrize("config", ["{", "[]", "{}", '{"model_type": "bert"}'])
def test_a_folder_that_is_not_a_model_is_refused(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UsageError, match="expected Swin2SR folders"):
        load_model(tmp_path)


def test_a_missing_library_is_named_with_its_install_command(tmp_path, foreign_without_spandrel):
    with pytest.raises(UsageError, match=r"need spandrel .*pip install --no-deps spandrel=="):
        load_model(foreign_without_spandrel)


@pytest.fixture
def foreign_without_spandrel(tmp_path, monkeypatch):
    import torch

    for name in [name for name in sys.modules if name.split(".")[0] == "spandrel"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "spandrel.architectures", None)
    monkeypatch.setattr("imgtx.models.adapters.spandrel.importlib.import_module", _none)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "m.pth")
    return tmp_path / "m.pth"


def _none(name: str) -> None:
    raise ImportError(f"No module named {name!r}")


@without_spandrel
@pytest.mark.parametrize("failure", ["ImportError('missing')", "RuntimeError('operator torchvision::nms')"])
def test_a_broken_torchvision_does_not_prevent_loading(tmp_path, failure):
    """The CUDA build beside a CPU torch fails with a RuntimeError; neither it nor a stand-in remains imported."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(f"raise {failure}")
    code = (
        "import sys\nfrom imgtx.models.adapters.spandrel import import_spandrel\n"
        "assert import_spandrel().MAIN_REGISTRY\n"
        "assert not [n for n in sys.modules if n.split('.')[0] == 'torchvision']"
    )
    root = str(Path(imgtx.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path[:0] = [{str(tmp_path)!r}, {root!r}]\n{code}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
