"""Split a long S3 listing at folders and read the pieces in parallel.

A server returns a listing in pages of 1,000 keys, one after the other, so a single reader waits for every round trip.
But any part of it can be requested. Folders are read level by level (`delimiter`) while they are few; where there are
many, every page of their names becomes several ranges of neighbouring folders, which are listed flat: where folders
are small, a request for each would cost more than the keys themselves. A folder without subfolders is one piece.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree

# Pages requested at once.
LISTERS = 16
# While fewer pieces wait, folders are opened to find more.
MAX_SHARDS = 64
# Into how many ranges a full page of folders is split.
RANGES = 4

# The response to ListObjectsV2.
Page = dict[str, Any]


@dataclass(frozen=True)
class Piece:
    """The part of a listing that one request covers. Keys are whole, from the bucket's root.

    by_level: the keys in the folder itself, and the names of its subfolders. Otherwise all keys below `folder`, or
        those below its subfolders from `first` to `last`.
    """

    folder: str
    by_level: bool = False
    first: str = ""
    last: str = ""
    token: str | None = None

    def request(self) -> dict[str, str]:
        """Return the arguments for ListObjectsV2."""
        asked = {"Prefix": self.folder}
        if self.by_level:
            asked["Delimiter"] = "/"
        if self.token is not None:
            asked["ContinuationToken"] = self.token
        elif self.first:
            # Leaves out only the folder's own marker.
            asked["StartAfter"] = self.first
        return asked

    def found(self, page: Page) -> list[dict[str, Any]]:
        """Return the objects of the page that belong to this piece."""
        found: list[dict[str, Any]] = page.get("Contents", [])
        if not self.last:
            return found
        below = len(self.folder)
        return [item for item in found if not self._beyond(item["Key"]) and "/" in item["Key"][below:]]

    def rest(self, page: Page) -> "Piece | None":
        """Return what is left of this piece after the page, None where nothing is."""
        if not page["IsTruncated"] or (self.last and self._beyond(_last_name(page))):
            return None
        return replace(self, token=page["NextContinuationToken"])

    def _beyond(self, key: str) -> bool:
        return key > self.last and not key.startswith(self.last)


def objects(ask: Callable[[Piece], Page], prefix: str) -> Iterator[list[dict[str, Any]]]:
    """Yield pages with every object whose key starts with `prefix` exactly once, in no particular order.

    ask: makes one request; called from up to LISTERS threads.
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
                waiting.extend(_pieces(piece, page, look_into=len(waiting) + len(running) < MAX_SHARDS))
                yield piece.found(page)


def _pieces(piece: Piece, page: Page, *, look_into: bool) -> Iterator[Piece]:
    """Yield the folders that a page names as pieces; if they are few, each is opened in turn."""
    folders = [common["Prefix"] for common in page.get("CommonPrefixes", [])]
    few = len(folders) <= LISTERS
    # Each range costs a request that is not full; further pages of folders bring ranges of their own.
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
    """Take key, size and ETag of the objects from a page's XML before botocore parses it.

    A handler for botocore's event before-parse. Its own parsing of a page by the service model, dates included, is most
    of what listing costs a driver (`bench/list_s3.py`).
    """
    if response_dict["status_code"] != 200:
        return
    try:
        page = ElementTree.fromstring(response_dict["body"])
    except ElementTree.ParseError:
        # botocore finds this too and reports it.
        return
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
