"""What the command line says if storage does not answer, or refuses this user."""

import importlib.util
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from imgtx.errors import DONE, UNREACHABLE, USAGE
from imgtx.models.references import read_info
from imgtx.models.sidecar import write_sidecar
from jobs.cli import main
from pipeline.runs import last_spec
from pipeline.storage.store import Store
from tests.support.archive import save_tiny_model
from tests.support.commands import complaint, imgtx, without_ray
from tests.support.zoo import photo, saved


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("ends", [("s3://bucket/in", "out"), ("in", "s3://bucket/out")])
def test_an_unreachable_endpoint_is_one_line(tmp_path, monkeypatch, silent_port, signed, ends):
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    if signed:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(saved(photo(8, 8)))
    result = CliRunner().invoke(main, ["upscale", *ends, "--endpoint-url", f"http://127.0.0.1:{silent_port}"])
    assert result.exit_code == USAGE, result.output
    (line,) = result.stderr.splitlines()
    what = "source cannot be read" if ends[1] == "out" else "destination s3://bucket/out/ cannot be written"
    assert line.startswith(f"imgtx: the {what}")
    # Without credentials no request can be signed, so the endpoint would not be asked.
    endpoint, credentials = f"127.0.0.1:{silent_port}", "no credentials found"
    assert (endpoint in line, credentials in line) == (signed, not signed), line


def test_an_unreachable_cluster_is_one_line_and_nothing_is_written(tmp_path: Path, silent_port: int):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(saved(photo(8, 8)))
    address = f"127.0.0.1:{silent_port}"
    result = CliRunner().invoke(
        main, ["upscale", str(tmp_path / "in"), str(tmp_path / "out"), "--address", address]
    )
    assert result.exit_code == UNREACHABLE, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"imgtx: --address {address}: no Ray cluster answers there")
    assert not (tmp_path / "out").exists()


def test_the_endpoint_of_a_model_in_s3_is_kept_for_workers_and_retry(
    tmp_path: Path, s3_store: Store, monkeypatch: pytest.MonkeyPatch
):
    """Source and destination are folders: only the model needs the endpoint, which the spec must keep."""
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    without_ray(monkeypatch)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(saved(photo(8, 8)))
    store = f"{s3_store.uri}models/tiny"

    def said(*arguments: str) -> str:
        result = imgtx(*arguments, "--endpoint-url", endpoint)
        assert result.exit_code == DONE, result.output
        return result.stdout

    assert (
        said("models", "import", save_tiny_model(tmp_path / "tiny.safetensors"), store) == f"{store}@0001\n"
    )
    said("models", "promote", f"{store}@1")
    assert "0001" in said("models", "list", f"{s3_store.uri}models")
    said("upscale", "in", "out", "--model", f"{store}@latest")
    spec = last_spec("out", None)
    assert (spec.model, spec.endpoint_url) == (f"{store}@0001", endpoint)
    shutil.rmtree(tmp_path / "cache")
    assert imgtx("retry", "out").exit_code == DONE
    said("evaluate", f"{store}@latest", str(save_photo(tmp_path / "set")))


def save_photo(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.png").write_bytes(saved(photo(32, 32)))
    return folder


def test_an_unreachable_model_is_one_line(tmp_path: Path, s3_store: Store, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "a.png").write_bytes(saved(photo(8, 8)))
    folders = (str(tmp_path), str(tmp_path / "../out"))
    root = s3_store.uri.rstrip("/")
    assert "no latest version" in complaint("upscale", *folders, "--model", f"{root}/models/tiny@latest")
    assert f"no model at {root}/x.pth" in complaint("upscale", *folders, "--model", f"{root}/x.pth")
    assert "the bucket must exist" in complaint(
        "upscale", *folders, "--model", "s3://no-such-bucket/x@latest"
    )


@pytest.mark.skipif(importlib.util.find_spec("spandrel") is None, reason="spandrel is not installed")
def test_a_third_party_model_is_fetched_with_its_sidecar(
    tmp_path: Path, s3_store: Store, monkeypatch: pytest.MonkeyPatch
):
    from tests.conformance.architectures import save

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    without_ray(monkeypatch)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(saved(photo(40, 40)))
    path = save("Compact", tmp_path)
    s3_store.write("x.pth", path.read_bytes())
    uri = f"{s3_store.uri}x.pth"
    arguments = ("in", "out", "--model", uri, "--precision", "auto", "--json")
    result = imgtx("upscale", *arguments)
    assert result.exit_code == DONE, result.output
    assert json.loads(imgtx("plan", "upscale", *arguments).stdout)["to_do"] == 0
    info, digest = read_info(path)
    measured = write_sidecar(path, digest, replace(info, dtypes=("float32", "bfloat16"), fast="bfloat16"), {})
    s3_store.write("x.pth.imgtx.json", measured.read_bytes())
    assert json.loads(imgtx("plan", "upscale", *arguments).stdout)["classes"]["stale"]["images"] == 1
    assert last_spec("out", None).model == uri
