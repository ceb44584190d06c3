"""Reports of what is done of an image: rare, of large images only, and each sent and read as it is."""

import pytest

from pipeline.stages import part_done
from pipeline.stages.part_done import PartDone, PartReporter

ROW = {"key": "a b/ü.tif", "size": 700, "in_height": 1000, "in_width": 2000}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [50.0]
    monkeypatch.setattr(part_done.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def reports() -> list[PartDone | None]:
    return []


@pytest.fixture
def reporter(reports: list[PartDone | None]) -> PartReporter:
    reporter = PartReporter()
    reporter.send = lambda data: reports.append(None if data is None else PartDone.from_bytes(data))
    return reporter


def test_there_is_no_report_of_an_image_that_takes_less_than_a_second(clock, reporter, reports):
    reporter.begin(ROW)
    for tile in range(1, 101):
        clock[0] += 0.0099
        reporter.done(tile / 100)
    reporter.end()
    assert reports == []


def test_there_is_one_report_a_second_and_one_when_all_is_done(clock, reporter, reports):
    reporter.begin(ROW)
    for tile in range(1, 101):
        clock[0] += 0.25
        reporter.done(tile / 100)
    reporter.end()
    assert [part.share for part in reports[:-1]] == [*(tile / 100 for tile in range(4, 101, 4))]
    assert reports[-1] is None
    assert reports[0] == PartDone("a b/ü.tif", 0.04, 2.0, 700)


def test_a_large_image_is_reported_at_once_and_its_size_when_it_is_known(clock, reporter, reports):
    row = {"key": "large", "size": 700}
    reporter.begin(row, at_once=True)
    row |= ROW
    clock[0] += 1
    reporter.done(0.5)
    assert [(part.share, part.megapixels) for part in reports] == [(0.0, 0.0), (0.5, 2.0)]


def test_of_images_that_share_a_call_and_without_a_listener_nothing_is_reported(clock, reporter, reports):
    reporter.begin(None)
    clock[0] += 5
    reporter.done(0.5)
    silent = PartReporter()
    silent.begin(ROW, at_once=True)
    clock[0] += 5
    silent.done(0.5)
    silent.end()
    assert reports == []


def test_a_report_survives_its_way():
    part = PartDone("a b/ü\n.tif", 0.1, 108.0, 700)
    assert PartDone.from_bytes(part.to_bytes()) == part
