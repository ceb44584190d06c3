"""Long listings are complete, each key once, few requests, and side by side: against a server made of a sorted list."""

import threading
from collections import Counter
from collections.abc import Iterator

import botocore.session
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.storage import s3_listing as module
from pipeline.storage.s3_listing import Page, Piece, objects, read_contents


class Server:
    """ListObjectsV2 over keys, as S3 documents it: names in the order of their bytes, a folder being one of them."""

    def __init__(self, keys: list[str], page: int):
        self.keys, self.page = sorted(keys, key=str.encode), page
        self.asked: list[Piece] = []
        self.at_once, self.most_at_once = 0, 0
        self.lock = threading.Lock()
        self.wait = False

    def __call__(self, piece: Piece) -> Page:
        with self.lock:
            self.asked.append(piece)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        if self.wait:
            threading.Event().wait(0.03)
        try:
            return self.answer(**piece.request())
        finally:
            with self.lock:
                self.at_once -= 1

    def names(self, prefix: str, delimiter: str, after: str) -> Iterator[tuple[str, bool]]:
        before = None
        for key in self.keys:
            if not key.startswith(prefix) or key.encode() <= after.encode():
                continue
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            name = key if end < 0 else key[: end + 1]
            if name != before:
                yield name, end >= 0
            before = name

    def answer(self, Prefix, Delimiter="", ContinuationToken="", StartAfter="") -> Page:  # noqa: N803 - S3's names
        named = list(self.names(Prefix, Delimiter, StartAfter if not ContinuationToken else ""))
        if ContinuationToken:
            named = [entry for entry in named if entry[0].encode() > ContinuationToken.encode()]
        page, rest = named[: self.page], named[self.page :]
        answer: Page = {"IsTruncated": bool(rest)}
        if rest:
            answer["NextContinuationToken"] = page[-1][0]
        if contents := [{"Key": name} for name, is_folder in page if not is_folder]:
            answer["Contents"] = contents
        if folders := [{"Prefix": name} for name, is_folder in page if is_folder]:
            answer["CommonPrefixes"] = folders
        return answer


def listed(server: Server, prefix: str = "") -> Counter[str]:
    return Counter(item["Key"] for page in objects(server, prefix) for item in page)


def but_markers(keys) -> Counter[str]:
    return Counter(key for key in keys if not key.endswith("/"))


parts = st.text(alphabet="ab/é~\U0001f600-.0", max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    keys=st.lists(
        st.builds("{}{}".format, st.sampled_from(["", "x/", "x/y/", "x0/"]), parts), unique=True, max_size=60
    ),
    page=st.integers(1, 7),
    prefix=st.sampled_from(["", "x", "x/", "x/y/a"]),
)
def test_every_key_is_listed_once_however_it_is_cut(keys, page, prefix):
    keys = [key for key in keys if key]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LISTERS", 3)
        patch.setattr(module, "MAX_SHARDS", 5)
        found = listed(Server(keys, page), prefix)
    assert but_markers(found.elements()) == but_markers(key for key in keys if key.startswith(prefix))
    assert max(found.values(), default=1) == 1


@pytest.mark.parametrize(
    ("keys", "most_requests"),
    [
        ([f"archive/2019/{n // 5:05d}/IMG_{n}.jpg" for n in range(10_000)], 1.9),  # many small folders
        ([f"archive/{n % 12}/{n}.jpg" for n in range(10_000)], 1.3),  # a few large ones
        ([f"a/b/c/{n % 40}/{n % 7}/{n}.jpg" for n in range(10_000)], 1.9),  # deep
    ],
    ids=["many small folders", "few large folders", "deep"],
)
def test_folders_are_listed_side_by_side_for_few_requests_more(keys, most_requests):
    server = Server(keys, 100)
    server.wait = True
    assert listed(server) == Counter(keys)
    assert server.most_at_once >= 8
    assert len(server.asked) <= most_requests * len(keys) / 100


def test_a_flat_listing_is_not_read_twice():
    server = Server([f"{n:05d}.jpg" for n in range(3_000)], 100)
    assert sum(listed(server).values()) == 3_000
    assert len(server.asked) == 30


def test_an_error_of_one_request_is_the_listings():
    class Broken(Server):
        def answer(self, **asked) -> Page:
            if "b/" in asked["Prefix"]:
                raise ConnectionError("cut")
            return super().answer(**asked)

    with pytest.raises(ConnectionError, match="cut"):
        listed(Broken([f"{folder}/{n}" for folder in "abc" for n in range(50)], 10))


PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult{}><Name>b</Name><IsTruncated>true</IsTruncated><EncodingType>url</EncodingType>
<Contents><Key>a%26/%C3%A9.jpg</Key><LastModified>2019-05-05T10:20:30.000Z</LastModified><ETag>&quot;0a&quot;</ETag>
<Size>4711</Size></Contents><Contents><Key>a%0Ab</Key><Size>0</Size><ETag>&quot;x&quot;</ETag></Contents>
<CommonPrefixes><Prefix>c/</Prefix></CommonPrefixes><NextContinuationToken>t</NextContinuationToken></ListBucketResult>"""


@pytest.mark.parametrize("space", ["", ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'])
def test_a_page_is_read_as_botocore_reads_it(space):
    session = botocore.session.get_session()
    model = session.get_service_model("s3").operation_model("ListObjectsV2").output_shape
    parser = session.get_component("response_parser_factory").create_parser("rest-xml")
    response = {"body": PAGE.format(space).encode(), "headers": {}, "status_code": 200, "context": {}}
    expected = parser.parse(dict(response), model)
    for item in expected["Contents"]:
        item.pop("LastModified", None)
    found: dict = {}
    read_contents(response, found)
    assert b"Contents" not in response["body"]
    rest = parser.parse(response, model)
    assert "Contents" not in rest
    assert rest | found == expected


@pytest.mark.parametrize("body", [b"<html>a log-in page<br></html>", b"", b"<ListBucketResult/>"])
def test_what_is_no_page_is_left_to_botocore(body):
    response, found = {"body": body, "status_code": 200}, {}
    read_contents(response, found)
    assert (response["body"], found) == (body, {})
