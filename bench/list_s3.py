"""Measure how fast a driver lists pages of 1,000 keys, each of which takes 50 ms: in order and in parallel.

    python -m bench.list_s3 [--keys 200000]

The server is a separate process with one archive: folders of 500 images under archive/2019/. The driver parses the
pages on one core, so `cpu_seconds` is the limit that more listers could reach.
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

from bench.report import save
from bench.slow_down import ENVIRONMENT
from pipeline.storage import s3_listing as storage_s3_listing
from pipeline.storage.store import open_store

# Seconds, as between machines of one region, the server's own work included.
LATENCY = 0.05
FOLDER, PAGE = 500, 1000
ITEM = (
    "<Contents><Key>{}</Key><LastModified>2019-05-05T10:20:30.000Z</LastModified>"
    "<ETag>&quot;{:032x}&quot;</ETag><Size>4711</Size><StorageClass>STANDARD</StorageClass></Contents>"
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--keys", type=int, default=200_000)
    arguments.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.serve:
        asyncio.run(serve(options.keys))
        return
    rows = []
    with serving(options.keys) as url, patch.dict(os.environ, ENVIRONMENT):
        for name, listers in (("one page after the other", 1), ("16 at once", storage_s3_listing.LISTERS)):
            rows.append({"listing": name} | measure(url, listers))
            print(*(f"{key} {value}" for key, value in rows[-1].items()), sep=", ", flush=True)
    assert all(row["keys"] == options.keys for row in rows)
    save(
        "list_s3",
        {"command": "python -m bench.list_s3", "keys": options.keys, "latency": LATENCY, "rows": rows},
    )


def measure(url: str, listers: int) -> dict[str, float]:
    store = open_store("s3://bucket/", endpoint_url=url)
    store.probe()
    with patch.object(storage_s3_listing, "LISTERS", listers):
        started, cpu = time.perf_counter(), time.process_time()
        keys = sum(batch.num_rows for batch in store.list())
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {"keys": keys, "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)}


@contextlib.contextmanager
def serving(keys: int) -> Iterator[str]:
    """Start the server, a process that ends with this one; yield its URL."""
    command = [sys.executable, "-m", "bench.list_s3", "--serve", "--keys", str(keys)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def name_of(number: int) -> str:
    return f"archive/2019/{number // FOLDER:07d}/IMG_{number:09d}.jpg"


def first_after(name: str) -> int:
    """Return the number of the first key after a key, a folder of 500 or one of their parents."""
    parts = name.split("/")
    if len(parts) == 4 and parts[3]:
        return int(parts[3][4:13]) + 1
    return int(parts[2]) * FOLDER if len(parts) > 2 and parts[2] else 0


def page(keys: int, asked: dict[str, str]) -> str:
    """Return the answer to ListObjectsV2; tokens are keys or folders."""
    prefix, token = asked.get("prefix", ""), asked.get("continuation-token", "")
    begin = max(first_after(prefix), first_after(token or asked.get("start-after", "")))
    end = min(keys, first_after(prefix) + FOLDER) if prefix.count("/") == 3 else keys
    if "delimiter" not in asked or prefix.count("/") == 3:
        last = min(end, begin + int(asked.get("max-keys", PAGE)))
        body = "".join(ITEM.format(name_of(n), n) for n in range(begin, last))
        return _answer(body, name_of(last - 1) if last < end else "")
    if prefix.count("/") < 2:
        below = "archive/2019/" if prefix else "archive/"
        return _answer(f"<CommonPrefixes><Prefix>{below}</Prefix></CommonPrefixes>", "")
    folders = -(-keys // FOLDER)
    first = int(token.split("/")[2]) + 1 if token else 0
    last = min(folders, first + PAGE)
    names = (f"archive/2019/{n:07d}/" for n in range(first, last))
    body = "".join(f"<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>" for name in names)
    return _answer(body, f"archive/2019/{last - 1:07d}/" if last < folders else "")


def _answer(body: str, token: str) -> str:
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
    return (
        f"<ListBucketResult>{more if token else '<IsTruncated>false</IsTruncated>'}{body}</ListBucketResult>"
    )


async def serve(keys: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                query = parse_qs(urlsplit(head.split(" ")[1]).query, keep_blank_values=True)
                await asyncio.sleep(LATENCY)
                body = page(keys, {name: values[0] for name, values in query.items()}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    await server.serve_forever()


def _end_with_the_parent() -> None:
    os.read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    main()
