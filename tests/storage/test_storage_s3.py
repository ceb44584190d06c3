"""Failures that only S3 has: requests are counted at the server, failures come from a scripted one."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest

from imgtx.errors import StorageError, UsageError
from pipeline.storage import retry as storage_retry
from pipeline.storage import s3 as storage_s3
from pipeline.storage import s3_listing as storage_s3_listing
from pipeline.storage.checks import check_destination, check_source
from pipeline.storage.retry import DEFAULT_RETRY, FAIL_FAST, RetryPolicy
from pipeline.storage.store import Store, open_store
from tests.storage.test_storage import listed
from tests.support.s3server import S3Server, serving

# Short pauses between retries, but a long timeout: an answer delayed by a busy machine would cost a request.
QUICK = RetryPolicy(attempts=3, first_pause=0.01, connect=30.0, read=30.0)


@pytest.fixture
def store(s3_store: Store) -> Store:
    return s3_store


def bucket_of(store: Store) -> str:
    return store.uri.split("/")[2]


def new_requests(server: S3Server, before: int) -> list[str]:
    return [f"{method} {status}" for method, _, status in server.requests()[before:]]


def test_one_call_is_one_request(store: Store, s3_server: S3Server):
    for call, requests in [
        (lambda: store.write("k", b"1"), ["PUT 200"]),
        (lambda: store.read("k"), ["GET 200"]),
        (lambda: store.stat("k"), ["HEAD 200"]),
        (lambda: store.create("k", b"2"), ["PUT 412", "HEAD 200"]),
        (lambda: listed(store), ["GET 200"]),
        (lambda: store.delete("k"), ["DELETE 204"]),
    ]:
        before = len(s3_server.requests())
        call()
        assert new_requests(s3_server, before) == requests
    before = len(s3_server.requests())
    with pytest.raises(StorageError):
        store.read("k")
    assert new_requests(s3_server, before) == ["GET 404"], "a missing object is not asked for twice"


def test_keys_that_are_invalid_file_names_work(store: Store):
    for key in ("a//b.jpg", "/c.jpg", "a", "a/b", "control\x01.jpg"):
        store.write(key, key.encode())
    assert set(listed(store)) == {"a//b.jpg", "/c.jpg", "a", "a/b", "control\x01.jpg"}
    assert store.read("a//b.jpg") == b"a//b.jpg"
    assert store.read("/c.jpg") == b"/c.jpg"


def test_folder_markers_are_not_listed(store: Store):
    client = boto3.client("s3")
    client.put_object(Bucket=bucket_of(store), Key="some/root/")
    client.put_object(Bucket=bucket_of(store), Key="some/root/folder/")
    store.write("folder/a.jpg", b"1")
    assert set(listed(store)) == {"folder/a.jpg"}


@pytest.mark.parametrize(
    "keys",
    [
        [f"top/{folder}/{number}" for folder in "abc" for number in range(7)] + ["top/direct", "top/a"],
        [f"{number:03}" for number in range(25)],
        [f"{number}/only" for number in range(12)],
        [f"one/two/three/{number}" for number in range(12)],
        ["one//two/", "one//two/x", *(f"one//two//{number}" for number in range(9))],
    ],
    ids=["folders", "flat", "many folders", "deep", "double slashes"],
)
def test_a_long_listing_is_complete_at_every_page_size(
    store: Store, keys: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(storage_s3, "_PAGE", 5)
    monkeypatch.setattr(storage_s3_listing, "LISTERS", 2)
    monkeypatch.setattr(storage_s3_listing, "MAX_SHARDS", 4)
    client = boto3.client("s3")
    for key in keys:
        client.put_object(Bucket=bucket_of(store), Key=f"some/root/{key}")
    assert set(listed(store)) == {key for key in keys if not key.endswith("/")}
    assert set(listed(store, keys[0][:5])) == {
        key for key in keys if key.startswith(keys[0][:5]) and not key.endswith("/")
    }


def test_a_large_upload_is_sent_in_parts(
    store: Store, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(storage_s3, "_PART", 5 << 20)
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1 << 20) * 12)
    before = len(s3_server.requests())
    store.upload("large", str(path))
    assert new_requests(s3_server, before) == ["POST 200", *["PUT 200"] * 3, "POST 200"]
    assert store.read("large") == path.read_bytes()


def test_a_failed_upload_is_aborted_and_a_killed_one_swept(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(storage_s3, "_PART", 5 << 20)
    path = tmp_path / "large"
    path.write_bytes(bytes(11 << 20))
    client = boto3.client("s3")

    def open_uploads() -> int:
        return len(client.list_multipart_uploads(Bucket=bucket_of(store)).get("Uploads", []))

    for key in ("images/killed", "foreign"):
        client.create_multipart_upload(Bucket=bucket_of(store), Key=f"some/root/{key}")
    ask = storage_s3.S3Objects._ask

    def failing(self, verb, key, request):
        if request.__name__ == "put":
            raise StorageError("storage", "the network is cut")
        return ask(self, verb, key, request)

    with monkeypatch.context() as patch:
        patch.setattr(storage_s3.S3Objects, "_ask", failing)
        with pytest.raises(StorageError, match="network is cut"):
            store.upload("large", str(path))
    assert store.stat("large") is None
    assert open_uploads() == 2
    assert store.sweep("images/") == 1
    # Another writer's upload beside ours.
    assert open_uploads() == 1


def test_a_missing_bucket_is_named(s3_server: S3Server):
    store = open_store("s3://no-such-bucket-here/a")
    for check in (check_source, check_destination):
        with pytest.raises(UsageError, match=r"no-such-bucket-here.*bucket must exist") as caught:
            check(store)
        assert "\n" not in str(caught.value)


def test_missing_credentials_are_reported(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(UsageError, match=r"no credentials found.*AWS_ACCESS_KEY_ID"):
        check_source(open_store("s3://some-bucket/a"))


@pytest.fixture
def unknown_host(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a host name that fails to resolve, without asking a resolver."""
    name, resolve = "nowhere.invalid", socket.getaddrinfo

    def getaddrinfo(host, *arguments, **options):
        if host in (name, name.encode()):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return name


@pytest.mark.parametrize("wrong", ["silent port", "unknown host"])
def test_a_wrong_endpoint_is_reported_within_seconds(
    s3_server: S3Server, wrong: str, silent_port: int, unknown_host: str, monkeypatch: pytest.MonkeyPatch
):
    pauses: list[float] = []
    monkeypatch.setattr(storage_retry, "time", SimpleNamespace(sleep=pauses.append))
    url = f"http://127.0.0.1:{silent_port}" if wrong == "silent port" else f"http://{unknown_host}"
    with pytest.raises(UsageError, match="endpoint must answer"):
        check_source(open_store("s3://some-bucket/a", endpoint_url=url))
    assert 0 < sum(pauses) < 2, "asked again once, and soon"


def test_an_endpoint_argument_overrides_the_environment(
    store: Store, s3_server: S3Server, silent_port: int, monkeypatch: pytest.MonkeyPatch
):
    store.write("k", b"1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent_port}")
    assert open_store(store.uri, endpoint_url=s3_server.url).read("k") == b"1"


def test_wrong_and_insufficient_credentials_are_reported(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
):
    with serving() as strict:
        monkeypatch.setenv("AWS_ENDPOINT_URL", strict.url)
        boto3.client("s3").create_bucket(Bucket="run_stage")
        iam = boto3.client("iam")
        iam.create_user(UserName="reader")
        policy = json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"}],
            }
        )
        iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
        keys = iam.create_access_key(UserName="reader")["AccessKey"]
        strict.post("/moto-api/reset-auth", b"0")

        with pytest.raises(UsageError, match="403 InvalidAccessKeyId"):
            check_source(open_store("s3://run_stage/a"))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["SecretAccessKey"])
        check_source(open_store("s3://run_stage/a"))
        with pytest.raises(
            UsageError, match=r"destination s3://run_stage/a/ cannot be written.*403 AccessDenied"
        ):
            check_destination(open_store("s3://run_stage/a"))


# --- scripted failures


@dataclass
class Stage:
    """A server on loopback that answers the requests it gets with `script`, in order, and then with 200.

    To a HEAD it says that the object was put by the last PUT if the script's body is "mine".
    """

    script: list[tuple[int, bytes]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    url: str = ""
    writer: str = ""


def error_body(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>on cue</Message></Error>".encode()


CUT, HALF = (-1, b""), (-2, b"")


@pytest.fixture
def stage(s3_server: S3Server) -> Iterator[Stage]:
    stage = Stage()

    class Actor(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            stage.seen.append(self.command)
            stage.writer = self.headers.get("x-amz-meta-imgtx-writer", stage.writer)
            status, body = stage.script.pop(0) if stage.script else (200, b"whole")
            if status == -1:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            self.send_response(200 if status == -2 else status)
            self.send_header("Content-Length", "100" if status == -2 else str(len(body)))
            self.send_header("x-amz-meta-imgtx-writer", stage.writer if body == b"mine" else "rival")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(b"half" if status == -2 else body)
            self.close_connection = True

        do_GET = do_HEAD = do_PUT = do_DELETE = answer  # noqa: N815 - the names that the server calls

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Actor)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    stage.url = f"http://127.0.0.1:{server.server_port}"
    yield stage
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def shaky(stage: Stage) -> Store:
    return replace(open_store("s3://bucket/root", endpoint_url=stage.url), retry=QUICK)


@pytest.mark.parametrize(
    "failure",
    [(503, error_body("SlowDown")), (500, error_body("InternalError")), (429, b""), CUT, HALF],
    ids=["slow down", "internal error", "too many", "connection cut", "body cut"],
)
def test_a_transient_failure_is_retried(shaky: Store, stage: Stage, failure: tuple[int, bytes]):
    stage.script = [failure, failure]
    assert shaky.read("k") == b"whole"
    assert stage.seen == ["GET"] * 3


@pytest.mark.parametrize("failure", [(503, error_body("SlowDown")), CUT, HALF], ids=["slow", "cut", "half"])
def test_retries_are_limited(shaky: Store, stage: Stage, failure: tuple[int, bytes]):
    stage.script = [failure] * 10
    with pytest.raises(StorageError, match="s3://bucket/root/k") as caught:
        shaky.read("k")
    assert caught.value.reason == "storage"
    assert caught.value.transient
    assert QUICK.attempts <= len(stage.seen) <= 2 * QUICK.attempts, "aiohttp repeats a cut request by itself"


def test_an_interrupted_download_restarts(shaky: Store, stage: Stage, tmp_path: Path):
    stage.script = [HALF]
    shaky.download("k", str(tmp_path / "k"))
    assert (tmp_path / "k").read_bytes() == b"whole"


@pytest.mark.parametrize("answer", [(411, error_body("MissingContentLength")), (411, b"")])
def test_an_older_server_is_reported_with_its_remedy(shaky: Store, stage: Stage, answer: tuple[int, bytes]):
    stage.script = [answer]
    with pytest.raises(StorageError, match="AWS_REQUEST_CHECKSUM_CALCULATION=when_required"):
        shaky.write("k", b"1")
    assert stage.seen == ["PUT"]


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (403, "AccessDenied", "forbidden"),
        (400, "ExpiredToken", "credentials"),
        (403, "InvalidAccessKeyId", "credentials"),
        (403, "SignatureDoesNotMatch", "credentials"),
        (404, "NoSuchKey", "not_found"),
    ],
)
def test_a_refusal_is_not_retried(shaky: Store, stage: Stage, status: int, code: str, reason: str):
    stage.script = [(status, error_body(code))]
    with pytest.raises(StorageError, match=code) as caught:
        shaky.read("k")
    assert (caught.value.reason, caught.value.transient) == (reason, False)
    assert len(stage.seen) == 1


def test_a_lost_answer_to_create_is_not_mistaken_for_a_rival(shaky: Store, stage: Stage):
    refused = (412, error_body("PreconditionFailed"))
    stage.script = [CUT, refused, (200, b"mine")]
    assert shaky.create("k", b"1")
    stage.script = [(503, b""), refused, (200, b"mine")]
    assert shaky.create("k", b"1")
    stage.script = [CUT, refused, (200, b"a rival's")]
    assert not shaky.create("k", b"1")
    stage.script = [CUT, refused, (404, b"")]
    assert not shaky.create("k", b"1")
    assert not stage.script


def test_an_endpoint_that_is_not_s3_is_reported(shaky: Store, stage: Stage):
    stage.script = [(200, b"<html>a router's log-in page<br></html>")] * 2
    with pytest.raises(UsageError, match=r"source cannot be read.*endpoint"):
        check_source(shaky)


def test_a_server_that_ignores_conditions_causes_a_warning(
    shaky: Store, stage: Stage, caplog: pytest.LogCaptureFixture
):
    page = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    stage.script = [(200, b""), (200, b""), (200, page), (204, b"")]
    check_destination(shaky)
    assert "ignores If-None-Match" in caplog.text


def test_retry_pauses_grow_up_to_a_limit():
    for retry in (DEFAULT_RETRY, FAIL_FAST):
        pauses = [retry.pause(attempt) for attempt in range(1, 20)]
        assert all(0 < pause <= retry.longest_pause for pause in pauses)
    assert sum(DEFAULT_RETRY.pause(attempt) for attempt in range(1, DEFAULT_RETRY.attempts)) > 25


def test_a_fork_opens_its_own_connection(store: Store):
    store.write("k", b"1")
    store.read("k")
    child = os.fork()
    if child == 0:
        os._exit(0 if store.read("k") == b"1" else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0


def test_local_storage_imports_no_s3_library():
    code = "import sys, pipeline.storage.store as s; s.open_store('/tmp').stat('x'); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"\b(s3fs|botocore|aiohttp|torch)\b", modules)
