"""The back end for S3.

Requests go straight to the client inside s3fs, with bucket and key as they are: s3fs's own paths drop what
follows "?versionId=" and collapse slashes, its `cat_file` sends a HEAD before each GET, and its errors hide the
HTTP status. The client's own retries are off, so that one request here is one on the wire (except that aiohttp
repeats a request whose connection was cut before any answer).

The client's rate limit is on (`retries` mode `adaptive`): after the first SlowDown a process sends no faster than the
server accepts, by CUBIC, the congestion control of TCP (RFC 9438): the rate falls to 0.7, then climbs back and
beyond. It limits a rate rather than the requests in flight, because a worker has only one of those. Each process finds
its own share, so workers need not know of one another. Only S3's throttling codes count; any other 500 or 503 is
repeated after the pauses of a RetryPolicy, whose jitter keeps workers out of step. Compared with retries alone, a
seventh to a fourteenth of the requests are refused, and the work takes some 30 % longer (`bench/slow_down.py`).
"""

import os
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any

import aiohttp
import pyarrow as pa
import s3fs
from aiobotocore.session import AioSession
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from fsspec.asyn import sync

from imgtx.errors import StorageError
from pipeline.storage.attributes import PLAIN, Attributes
from pipeline.storage.objects import check_version, is_hidden
from pipeline.storage.retry import Answer, RetryPolicy, retried
from pipeline.storage.s3_listing import Page, Piece, objects, read_contents
from pipeline.tables.schemas import CREDENTIALS, FORBIDDEN, INVENTORY, NO_SPACE

_WRITER = "imgtx-writer"
_PAGE = 1000
_CHUNK = 1 << 20
_PART = 32 << 20
_MAX_PARTS = 10_000
_PARTS_AT_ONCE = 4

PACING = "adaptive"
_UNKNOWN = {
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
}
_TRANSIENT_STATUS = {429, 500, 502, 503, 504}
_TRANSIENT_CODES = {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling"}
_CUT = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    aiohttp.ClientError,
    ConnectionError,
    TimeoutError,
)
# Ceph, MinIO and others; AWS has no quota on bytes.
_FULL = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "InsufficientCapacity"}
_NO_CREDENTIALS = (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)

_SET_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, on driver and workers"
_OLDER_SERVER = (
    "an older S3 server that cannot read checksums in trailers: set "
    "AWS_REQUEST_CHECKSUM_CALCULATION=when_required and AWS_RESPONSE_CHECKSUM_VALIDATION=when_required "
    "in the environment of driver and workers"
)


class S3Objects:
    """Objects of `bucket` whose keys start with `root`, which is "" or ends in "/"."""

    def __init__(self, bucket: str, root: str, endpoint_url: str | None, retry: RetryPolicy):
        self._bucket = bucket
        self._root = root
        self._retry = retry
        self._endpoint_url = endpoint_url

    def probe(self) -> None:
        self._page(Piece(self._root), size=1)

    def read(self, key: str, version: str) -> bytes:
        async def get(client: Any) -> bytes:
            response = await client.get_object(**self._object(key))
            check_version(f"s3://{self._bucket}/{self._root}{key}", _etag(response.get("ETag", "")), version)
            async with response["Body"] as body:
                return await body.read()

        return self._ask("read", key, get)

    def download(self, key: str, target: str, version: str) -> None:
        async def get(client: Any) -> None:
            response = await client.get_object(**self._object(key))
            check_version(f"s3://{self._bucket}/{self._root}{key}", _etag(response.get("ETag", "")), version)
            async with response["Body"] as body:
                with open(target, "wb") as file:
                    async for chunk in body.iter_chunks(_CHUNK):
                        file.write(chunk)

        self._ask("read", key, get)

    def write(self, key: str, data: bytes | memoryview, attributes: Attributes = PLAIN) -> None:
        # The client refuses a view.
        body = bytes(data)
        self._ask("write", key, lambda client: client.put_object(**self._object(key), Body=body))

    def upload(self, key: str, source: str, attributes: Attributes = PLAIN) -> None:
        if os.path.getsize(source) <= 2 * _PART:
            with open(source, "rb") as file:
                return self.write(key, file.read())
        return self._upload_parts(key, source)

    def create(self, key: str, data: bytes) -> bool:
        # A put whose answer was lost is repeated, here or inside aiohttp, and then refused because of the object that
        # it created itself. The mark tells that object from one of another writer.
        mark = uuid.uuid4().hex

        async def put(client: Any) -> bool:
            try:
                await client.put_object(
                    **self._object(key), Body=data, IfNoneMatch="*", Metadata={_WRITER: mark}
                )
            except boto.ClientError as error:
                if _status(error) in (409, 412):
                    return False
                raise
            return True

        return self._ask("write", key, put) or self._writer(key) == mark

    def _writer(self, key: str) -> str | None:
        async def head(client: Any) -> str | None:
            try:
                return (await client.head_object(**self._object(key)))["Metadata"].get(_WRITER)
            except boto.ClientError as error:
                if _status(error) == 404:
                    return None
                raise

        return self._ask("stat", key, head)

    def delete(self, key: str) -> None:
        self._ask("delete", key, lambda client: client.delete_object(**self._object(key)))

    def stat(self, key: str) -> tuple[int, str] | None:
        async def head(client: Any) -> tuple[int, str] | None:
            try:
                response = await client.head_object(**self._object(key))
            except boto.ClientError as error:
                if _status(error) == 404:
                    return None
                raise
            return response["ContentLength"], _etag(response["ETag"])

        return self._ask("stat", key, head)

    def list(self, prefix: str, enters: Callable[[str], bool] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield pages of up to 1,000 keys; a longer listing asks for several at once (`s3_listing`)."""
        first = self._page(Piece(self._root + prefix))
        if not first["IsTruncated"]:
            yield self._batch(first.get("Contents", []))
            return
        for found in objects(self._page, self._root + prefix):
            yield self._batch(found)

    def sweep(self, prefix: str) -> int:
        """Abort the multipart uploads that a killed run left open."""

        async def abort(client: Any) -> int:
            swept = 0
            pages = client.get_paginator("list_multipart_uploads")
            async for page in pages.paginate(Bucket=self._bucket, Prefix=self._root + prefix):
                for upload in page.get("Uploads", []):
                    where = {"Bucket": self._bucket, "Key": upload["Key"]}
                    await client.abort_multipart_upload(**where, UploadId=upload["UploadId"])
                    swept += 1
            return swept

        return self._ask("sweep", "", abort)

    def _upload_parts(self, key: str, source: str) -> None:
        size = os.path.getsize(source)
        part = max(_PART, -(-size // _MAX_PARTS))

        async def opened(client: Any) -> str:
            return (await client.create_multipart_upload(**self._object(key)))["UploadId"]

        upload = {**self._object(key), "UploadId": self._ask("write", key, opened)}

        def put_part(number: int) -> dict[str, Any]:
            with open(source, "rb") as file:
                file.seek((number - 1) * part)
                data = file.read(part)

            async def put(client: Any) -> dict[str, Any]:
                response = await client.upload_part(**upload, PartNumber=number, Body=data)
                return {"PartNumber": number, "ETag": response["ETag"]}

            return self._ask("write", key, put)

        try:
            with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
                parts = list(pool.map(put_part, range(1, -(-size // part) + 1)))
            done = {"Parts": parts}
            self._ask("write", key, lambda c: c.complete_multipart_upload(**upload, MultipartUpload=done))
        except BaseException:
            self._ask("write", key, lambda client: client.abort_multipart_upload(**upload))
            raise

    def _page(self, piece: Piece, size: int | None = None) -> Page:
        request = {"Bucket": self._bucket, "MaxKeys": size or _PAGE, **piece.request()}
        where = piece.folder[len(self._root) :]
        return self._ask("list", where, lambda client: client.list_objects_v2(**request))

    def _batch(self, found: Sequence[dict[str, Any]]) -> pa.RecordBatch:
        start = len(self._root)
        found = [item for item in found if not is_hidden(item["Key"])]
        columns = [
            pa.array([item["Key"][start:] for item in found], pa.string()),
            pa.array([item["Size"] for item in found], pa.int64()),
            pa.array([_etag(item["ETag"]) for item in found], pa.string()),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=INVENTORY)

    def _object(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._root + key}

    def _ask(self, verb: str, key: str, request: Callable[[Any], Awaitable[Answer]]) -> Answer:
        fs = _connection(self._endpoint_url, self._retry, os.getpid(), _environment())

        async def once() -> Answer:
            return await request(await fs.set_session())

        where = f"s3://{self._bucket}/{self._root}{key}"
        return retried(lambda: sync(fs.loop, once), partial(_explain, verb, where), self._retry)


@lru_cache(maxsize=8)
def _connection(
    endpoint_url: str | None, retry: RetryPolicy, _pid: int, _environment: int
) -> s3fs.S3FileSystem:
    """Return this process's client for all its stores: opening one costs 0.2 s.

    A fork or a changed environment opens another, because of its sockets or its credentials.
    """
    return s3fs.S3FileSystem(
        endpoint_url=endpoint_url,
        config_kwargs={
            "retries": {"mode": PACING, "total_max_attempts": 1},
            "connect_timeout": retry.connect,
            "read_timeout": retry.read,
            "max_pool_connections": 64,
        },
        use_listings_cache=False,
        skip_instance_cache=True,
        session=_session(),
    )


def _session() -> AioSession:
    session = AioSession()
    session.register("before-parse.s3.ListObjectsV2", read_contents)
    return session


def _environment() -> int:
    return hash(tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))))


def _etag(quoted: str) -> str:
    return quoted.strip('"')


def _status(error: boto.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _explain(verb: str, where: str, error: Exception) -> StorageError | None:
    if isinstance(error, boto.ClientError):
        return _explain_answer(f"cannot {verb} {where}", error)
    if isinstance(error, _NO_CREDENTIALS):
        return StorageError(
            CREDENTIALS,
            f"cannot {verb} {where}: no credentials found; S3 needs a key pair: {_SET_CREDENTIALS}",
        )
    given = f"cannot {verb} {where}: {error or type(error).__name__}"
    if isinstance(error, boto.SSLError):
        return StorageError("storage", f"{given}; TLS must match the endpoint: check its http:// or https://")
    if isinstance(error, _CUT):
        return StorageError(
            "storage", f"{given}; the endpoint must answer: check its address and the network", transient=True
        )
    if isinstance(error, ResponseParserError):
        return StorageError("storage", f"{given}; the endpoint must speak S3: check its address")
    if isinstance(error, boto.ParamValidationError):
        return StorageError("storage", f"{given}; buckets and keys follow S3's rules: check the name")
    if isinstance(error, boto.BotoCoreError):
        return StorageError("storage", f"{given}; check the AWS configuration")
    return None


def _explain_answer(given: str, error: boto.ClientError) -> StorageError:
    code = error.response.get("Error", {}).get("Code", "")
    message = error.response.get("Error", {}).get("Message", "")
    status = _status(error)
    given = f"{given}: {status} {code} {message}".rstrip(" .")
    if status == 507 or code in _FULL:
        return StorageError(
            NO_SPACE, f"{given}; the bucket must have room: free some, or have its quota raised"
        )
    if status == 411 or code == "MissingContentLength":
        return StorageError("storage", f"{given}; this is {_OLDER_SERVER}")
    if code == "NoSuchBucket":
        return StorageError("not_found", f"{given}; the bucket must exist: check its name and the endpoint")
    if status == 404:
        return StorageError("not_found", f"{given}; there must be an object with this key: check the name")
    if code in _UNKNOWN or status == 401:
        return StorageError(CREDENTIALS, f"{given}; S3 does not accept these credentials: {_SET_CREDENTIALS}")
    if status == 403:
        return StorageError(FORBIDDEN, f"{given}; these credentials need access: {_SET_CREDENTIALS}")
    if status in _TRANSIENT_STATUS or code in _TRANSIENT_CODES:
        return StorageError(
            "storage", f"{given}; the server failed: check the endpoint, run again later", transient=True
        )
    return StorageError("storage", f"{given}; check bucket, endpoint and region")
