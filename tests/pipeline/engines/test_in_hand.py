"""What is in hand when reports are read from a table, as on Ray, while images are finished."""

import pyarrow as pa

from pipeline.engines.in_hand import InHand
from pipeline.stages.part_done import PartDone


def part(key: str, share: float) -> PartDone:
    return PartDone(key, share, 10.0, 100)


def finished(*keys: str) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(keys, pa.string())])


def test_parts_add_up_and_stay_when_the_table_no_longer_has_them():
    in_hand, changes = InHand(), list[int]()
    in_hand.changed = lambda: changes.append(1)
    in_hand.look(lambda: [part("a", 0.5), part("b", 0.25)])
    in_hand.look(list)
    assert (in_hand.images, in_hand.megapixels, in_hand.size) == (0.75, 7.5, 75.0)
    assert len(changes) == 1
    in_hand.finish(finished("a", "c"))
    assert in_hand.images == 0.25
    in_hand.clear()
    assert in_hand.images == 0.0


def test_an_image_that_is_finished_while_the_table_is_read_is_not_in_hand():
    in_hand = InHand()

    def read() -> list[PartDone]:
        in_hand.finish(finished("a"))
        return [part("a", 1.0), part("b", 0.5)]

    in_hand.look(read)
    assert [part.key for part in in_hand.parts] == ["b"]


def test_of_two_workers_that_name_an_image_the_smaller_part_counts():
    """One of them has ended, and what it had done is done again."""
    in_hand = InHand()
    for parts in ([part("a", 0.9), part("a", 0.1)], [part("a", 0.1), part("a", 0.9)]):
        in_hand.look(lambda parts=parts: parts)
        assert in_hand.images == 0.1
