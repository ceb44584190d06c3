"""Credentials that end during a run stop it with one line: no image is blamed, and the next run continues."""

import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from imgtx.errors import DONE, INTERRUPTED
from pipeline import flow
from pipeline.ledger.ledger import Ledger
from pipeline.storage.store import open_store
from tests.support.archive import save_tiny_model
from tests.support.commands import InProcess, imgtx, without_ray
from tests.support.s3server import S3Server, serving
from tests.support.zoo import photo, saved

COUNT, BEFORE = 12, 5


class Accounts:
    """A server that checks credentials, an administrator, and a user whose key is created and revoked."""

    def __init__(self, server: S3Server, monkeypatch: pytest.MonkeyPatch):
        self.patch = monkeypatch
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        iam = boto3.client("iam")
        for user in ("administrator", "user"):
            iam.create_user(UserName=user)
            everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
            policy = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
            iam.put_user_policy(UserName=user, PolicyName="all", PolicyDocument=policy)
        key = iam.create_access_key(UserName="administrator")["AccessKey"]
        self.pair = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
        server.post("/moto-api/reset-auth", b"0")
        self.iam, self.s3 = (boto3.client(name, **self.pair) for name in ("iam", "s3"))
        self.s3.create_bucket(Bucket="archive")
        for number in range(COUNT):
            self.s3.put_object(Bucket="archive", Key=f"in/{number:02}.png", Body=saved(photo(8, 8)))

    def renew(self) -> None:
        """Create a key pair for the user and put it into this process's environment."""
        key = self.iam.create_access_key(UserName="user")["AccessKey"]
        self.patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        self.patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])

    def expire(self) -> None:
        (key,) = self.iam.list_access_keys(UserName="user")["AccessKeyMetadata"]
        self.iam.delete_access_key(UserName="user", AccessKeyId=key["AccessKeyId"])

    def forbid(self) -> None:
        """Remove the user's permission to read; the key stays."""
        refused = {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::archive/in/*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [refused]})
        self.iam.put_user_policy(UserName="user", PolicyName="none", PolicyDocument=policy)

    def allow(self) -> None:
        self.iam.delete_user_policy(UserName="user", PolicyName="none")


@pytest.fixture
def accounts(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Accounts]:
    with serving() as server:
        yield Accounts(server, monkeypatch)


def interrupted_after(patch: pytest.MonkeyPatch, images: int, happens) -> None:
    """Call a function when so many images of a run are done."""

    class Interrupted(InProcess):
        def iter_batches(self, **options):
            for number, table in enumerate(super().iter_batches(**options), 1):
                yield table
                if number == images:
                    happens()

    patch.setattr(flow, "build_dataset", Interrupted)


def last_words(*command: str) -> str:
    """Return the last line of a stopped run, below its progress."""
    result = imgtx(*command)
    assert result.exit_code == INTERRUPTED, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("imgtx: ")]
    assert "Traceback" not in result.output
    return line


@pytest.mark.parametrize("destination", ["out", "s3://archive/out"])
def test_an_expired_key_stops_the_run_and_a_new_one_continues_it(
    tmp_path: Path, accounts: Accounts, monkeypatch: pytest.MonkeyPatch, destination: str
):
    monkeypatch.chdir(tmp_path)
    accounts.renew()
    command = (
        "upscale",
        "s3://archive/in",
        destination,
        "--model",
        save_tiny_model(tmp_path / "tiny.safetensors"),
    )
    without_ray(monkeypatch)
    with monkeypatch.context() as patch:
        interrupted_after(patch, BEFORE, accounts.expire)
        line = last_words(*command)
    assert "403 InvalidAccessKeyId" in line
    assert "S3 does not accept these credentials" in line
    assert f"{BEFORE} done, {COUNT - BEFORE} pending; run the same command to continue" in line
    accounts.renew()
    rows = Ledger(open_store(destination)).current(["status"]) if destination == "out" else None
    assert rows is None or rows["status"].to_pylist() == ["written"] * BEFORE
    # The process that could not release its lease is this one, which is alive.
    result = imgtx(*command, "--json", *(["--force-unlock"] if destination != "out" else []))
    assert result.exit_code == DONE, result.output
    summary = json.loads(result.stdout)
    assert summary["written"] + summary["current"] == COUNT
    assert summary["failed"] == 0
    if destination == "out":
        assert summary["current"] == BEFORE


def test_a_revoked_permission_stops_the_run_after_some_refusals(
    tmp_path: Path, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jobs.run.access.REFUSALS", 4)
    accounts.renew()
    command = ("upscale", "s3://archive/in", "out", "--model", save_tiny_model(tmp_path / "tiny.safetensors"))
    without_ray(monkeypatch)
    with monkeypatch.context() as patch:
        interrupted_after(patch, BEFORE, accounts.forbid)
        line = last_words(*command)
    assert "4 images in a row were refused, and cannot stat s3://archive/in/" in line
    assert f"{BEFORE + 4} done, {COUNT - BEFORE - 4} pending" in line
    accounts.allow()
    summary = json.loads(imgtx(*command, "--json").stdout)
    assert (summary["written"], summary["current"], summary["failed"]) == (COUNT - BEFORE, BEFORE, 0)
