"""Credentials are never written; a hostile listing writes only under the destination.

Runs use the real stages from S3 to S3 and to disk, in this process and without Ray.
"""

import json
import logging
import os
import pickle
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

import boto3
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from imgtx.models.weight_file import read_info
from jobs.run.prepare import prepare
from pipeline.ledger.ledger import Ledger
from pipeline.sources.images import inventory
from pipeline.spec import RunSpec
from pipeline.storage.store import Store, open_store
from tests.support.archive import fill, save_tiny_model
from tests.support.commands import imgtx, without_ray
from tests.support.s3server import S3Server
from tests.support.zoo import photo, saved

# Each kind of secret with a value that occurs nowhere by chance.
PLANTED = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDACCESSKEY",
    "AWS_SECRET_ACCESS_KEY": "planted/secret+access/key0123456789abcdef",
    "AWS_SESSION_TOKEN": "planted-session-token-0123456789",
    "RAY_AUTH_TOKEN": "planted0ray0token0123456789abcdef",
    "HF_TOKEN": "hf_plantedtoken",
}
HOSTILE = [
    "../escape.png",
    "a/../../escape.png",
    "/etc/escape.png",
    "a//b.png",
    "./c.png",
    "line\nbreak.png",
    "bell\x07.png",
    "d/" * 509 + "1024.png",
    "n" * 300 + ".png",
    "..png",
    "back\\..\\slash.png",
    "~/home.png",
    "$HOME/`id`;x.png",
    "con.png",
    "ok.png",
]


@pytest.fixture
def planted(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Set credentials in the environment, replace Ray, and use a separate folder for temporary files."""
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    without_ray(monkeypatch)
    return tmp_path


def new_bucket(name: str) -> Store:
    bucket = f"{name}-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return open_store(f"s3://{bucket}/root")


def secrets_in(text: bytes) -> list[str]:
    return [name for name, value in PLANTED.items() if value.encode() in text]


def everything_under(store: Store) -> dict[str, bytes]:
    """Return each object as it is stored, and the rows of Parquet files too, because their bytes are compressed."""
    found = {}
    for batch in store.list():
        for key in batch.column("key").to_pylist():
            found[key] = store.read(key)
            if key.endswith(".parquet"):
                with tempfile.TemporaryFile() as file:
                    file.write(found[key])
                    found[f"{key}: rows"] = repr(pq.read_table(file).to_pylist()).encode()
    return found


def test_the_search_finds_planted_secrets(planted: Path):
    store = new_bucket("out")
    store.write("a.json", json.dumps({"x": PLANTED["AWS_SECRET_ACCESS_KEY"]}).encode())
    assert [name for data in everything_under(store).values() for name in secrets_in(data)] == [
        "AWS_SECRET_ACCESS_KEY"
    ]


def test_a_credential_that_is_used_is_written_nowhere(
    planted: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    source, out = new_bucket("in"), new_bucket("out")
    fill(source, 3)
    source.write("broken.png", saved(photo())[:100])
    source.write("empty.png", b"")
    model = save_tiny_model(planted / "tiny.safetensors")
    nightly = planted / "nightly.toml"
    nightly.write_text(
        f'archive = "{source.uri}"\nmodel = "s3://bucket/models/m"\nstate = "{out.uri}"\nvalid = "{source.uri}"\n'
        '[schedule]\nsecret = "s3-keys"\nenvironment_file = "keys.env"\n'
    )
    (planted / "keys.env").write_text("".join(f"{name}={value}\n" for name, value in PLANTED.items()))
    run = ["--model", model, "--max-failed", "100%"]
    # Not DEBUG for all: botocore then logs what it signs with; imgtx never enables that.
    with caplog.at_level(logging.INFO), caplog.at_level(logging.DEBUG, logger="imgtx"):
        for command in (
            ["plan", "upscale", source.uri, out.uri, *run],
            ["upscale", source.uri, out.uri, *run],
            ["upscale", source.uri, out.uri, *run, "--json", "--format", "jpeg", "--yes"],
            ["retry", out.uri],
            ["status", out.uri],
            ["status", out.uri, "--prometheus"],
            ["verify", out.uri],
            ["upscale", "s3://bucket-that-is-not-there/", out.uri, *run],
            ["upscale", source.uri, "s3://bucket-that-is-not-there/", *run],
            ["models", "import", "sr-x2", f"{out.uri}models/sr-x2"],
            *(
                ["schedule", str(nightly), "--target", t]
                for t in ("cronjob", "rayjob", "raycronjob", "systemd")
            ),
        ):
            result = imgtx(*command)
            assert result.exit_code in (0, 2, 3), result.output
            assert secrets_in(result.output.encode()) == [], command
    job = prepare(RunSpec(source.uri, out.uri, model=model)).job
    # This is sent to workers.
    assert secrets_in(pickle.dumps((job, source, out))) == []
    left = {str(p): p.read_bytes() for p in (planted / "tmp").rglob("*") if p.is_file()}
    texts = everything_under(out) | left | {"log": caplog.text.encode()}
    assert len(Ledger(out).current()) == 5
    assert {key.split("/")[0] for key in texts} >= {"images", "ledger", "runs", "lease", "models"}
    assert {key: found for key, data in texts.items() if (found := secrets_in(data))} == {}


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_a_hostile_listing_cannot_write_outside_the_destination(planted: Path, kind: str):
    source = new_bucket("in")
    client, bucket = boto3.client("s3"), source.uri.split("/")[2]
    for key in HOSTILE:
        # moto refuses some.
        with suppress(ClientError):
            client.put_object(Bucket=bucket, Key=f"root/{key}", Body=saved(photo(8, 8)))
    listed = {key for batch in inventory(source) for key in batch.column("key").to_pylist()}
    # Some of the keys are written under another name.
    assert len(listed) > 8
    out = open_store(str(planted / "deep" / "er" / "out")) if kind == "disk" else new_bucket("out")
    before = files_beside(planted)
    model = save_tiny_model(planted / "tiny.safetensors")
    result = imgtx("upscale", source.uri, out.uri, "--model", model, "--max-failed", "100%", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout.splitlines()[-1])
    assert (summary["accounted"], summary["listed"]) == (True, len(listed))
    rows = {row["key"]: row for row in Ledger(out).current().to_pylist()}
    assert {*rows} == listed
    for key, row in rows.items():
        if row["status"] == "written":
            assert ".." not in row["output"].split("/")
            assert out.stat(f"images/{row['output']}") is not None, key
        else:
            assert row["reason"] in ("unsafe_key", "storage"), row
    assert rows["ok.png"]["status"] == "written"
    new = files_beside(planted) - before - {planted / "tiny.safetensors"}
    assert [path for path in new if not path.is_relative_to(planted / "deep" / "er" / "out")] == []
    if kind == "s3":
        outside = [o["Key"] for o in client.list_objects_v2(Bucket=out.uri.split("/")[2])["Contents"]]
        assert all(key.startswith("root/") for key in outside)


def files_beside(folder: Path) -> set[Path]:
    """Return the files under the folder except caches; symbolic links are not followed."""
    found = {Path(top, name) for top, _, names in os.walk(folder) for name in names}
    return {path for path in found if path.parts[len(folder.parts)] not in ("cache", "tmp")}


def test_files_that_are_read_cannot_run_code(planted: Path):
    """A pickle in place of weights or of a ledger part is refused without being read."""
    marker = planted / "ran"

    class Hostile:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {marker}",)

    for name in ("model.safetensors", "part.parquet"):
        (planted / name).write_bytes(pickle.dumps(Hostile()))
    (planted / "in").mkdir()
    (planted / "in" / "a.png").write_bytes(pickle.dumps(Hostile()))
    out = planted / "out"
    (out / "ledger").mkdir(parents=True)
    with pytest.raises(Exception, match=r"model\.safetensors"):
        read_info(str(planted / "model.safetensors"))
    model = save_tiny_model(planted / "tiny.safetensors")
    result = imgtx("upscale", str(planted / "in"), str(out), "--model", model)
    assert result.exit_code == 3, result.output
    (row,) = Ledger(open_store(str(out))).current().to_pylist()
    assert row["reason"] == "not_an_image"
    (out / "ledger" / "part.parquet").write_bytes(pickle.dumps(Hostile()))
    imgtx("status", str(out))
    imgtx("verify", str(out))
    assert not marker.exists()
    pickle.loads(pickle.dumps(Hostile()))
    # It would have run if it had been loaded.
    assert marker.exists()
