"""A long S3 listing, cut where folders are and read side by side.

A server hands a listing out a page of 1,000 keys after the other, so one reader is as slow as a page's round trip. But
any piece of it can be asked for. Folders are read level by level (`delimiter`) while they are few; where there are
many, every page of their names becomes some ranges of neighbouring folders, which are listed flat: a request for each
folder would cost more than the keys where folders are small. A folder without folders is one piece.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree

LISTERS = 16  # pages asked for at once
MOST_SHARDS = 64  # pieces that wait; below so many, folders are looked into for more
RANGES = 4  # that a full page of folders becomes

Page = dict[str, Any]  # the answer to ListObjectsV2


@dataclass(frozen=True)
class Piece:
    """What one request asks for. Keys are whole, from the bucket's root.

    by_level: the keys in the folder itself, and the names of its folders. Otherwise all keys below `folder`; with
    `first` and `last` those below its folders from the one to the other.
    """

    folder: str
    by_level: bool = False
    first: str = ""
    last: str = ""
    token: str | None = None

    def request(self) -> dict[str, str]:
        """Its arguments to ListObjectsV2."""
        asked = {"Prefix": self.folder}
        if self.by_level:
            asked["Delimiter"] = "/"
        if self.token is not None:
            asked["ContinuationToken"] = self.token
        elif self.first:
            asked["StartAfter"] = self.first  # which leaves out the folder's own marker, and nothing else
        return asked

    def found(self, page: Page) -> list[dict[str, Any]]:
        """The objects of the page that belong to it."""
        found: list[dict[str, Any]] = page.get("Contents", [])
        if not self.last:
            return found
        below = len(self.folder)
        return [item for item in found if not self._beyond(item["Key"]) and "/" in item["Key"][below:]]

    def rest(self, page: Page) -> "Piece | None":
        """What is left of it after this page."""
        if not page["IsTruncated"] or (self.last and self._beyond(_last_name(page))):
            return None
        return replace(self, token=page["NextContinuationToken"])

    def _beyond(self, key: str) -> bool:
        return key > self.last and not key.startswith(self.last)


def objects(ask: Callable[[Piece], Page], prefix: str) -> Iterator[list[dict[str, Any]]]:
    """Every object whose key starts with `prefix` exactly once, by pages, in no promised order.

    ask: one request, called from up to LISTERS threads.
    """
    waiting = deque([Piece(prefix, by_level=True)])
    running: dict[Future[Page], Piece] = {}
    with ThreadPoolExecutor(LISTERS) as pool:
        while waiting or running:
            while waiting and len(running) < LISTERS:
                piece = waiting.popleft()
                running[pool.submit(ask, piece)] = piece
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                piece, page = running.pop(future), future.result()
                if rest := piece.rest(page):
                    waiting.appendleft(rest)
                waiting.extend(_pieces(piece, page, look_into=len(waiting) + len(running) < MOST_SHARDS))
                yield piece.found(page)


def _pieces(piece: Piece, page: Page, *, look_into: bool) -> Iterator[Piece]:
    """The folders that a page names, as pieces; each is looked into in turn if they are few."""
    folders = [common["Prefix"] for common in page.get("CommonPrefixes", [])]
    few = len(folders) <= LISTERS
    # each range costs a request that is not full; where more pages of folders follow, they bring ranges too
    size = 1 if few else -(-len(folders) // (RANGES if page["IsTruncated"] else LISTERS))
    for start in range(0, len(folders), size):
        first, last = folders[start], folders[min(start + size, len(folders)) - 1]
        if first != last:
            yield Piece(piece.folder, first=first, last=last)
        else:
            yield Piece(first, by_level=few and look_into and not page["IsTruncated"])


def _last_name(page: Page) -> str:
    return max((item["Key"] for item in page.get("Contents", [])), default="")


def read_contents(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object
) -> None:
    """Take key, size and etag of the objects out of a page's XML before botocore reads it.

    A handler of botocore's event before-parse. Its own reading of a page by the model of the service, dates and all, is
    most of what listing costs a driver (`bench/list_s3.py`).
    """
    if response_dict["status_code"] != 200:
        return
    try:
        page = ElementTree.fromstring(response_dict["body"])
    except ElementTree.ParseError:
        return  # which botocore finds as well, and says so
    space = page.tag[: page.tag.find("}") + 1]
    contents = page.findall(f"{space}Contents")
    if not contents:
        return
    page[:] = [child for child in page if child.tag != f"{space}Contents"]
    response_dict["body"] = ElementTree.tostring(page)
    customized_response_dict["Contents"] = [
        {
            "Key": item.findtext(f"{space}Key", ""),
            "Size": int(item.findtext(f"{space}Size", "0")),
            "ETag": item.findtext(f"{space}ETag", ""),
        }
        for item in contents
    ]
