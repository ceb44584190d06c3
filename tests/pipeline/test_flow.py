"""How the work of a pass is cut into blocks."""

import pyarrow as pa
import pytest

from pipeline.cluster.pool import Pool
from pipeline.flow import blocks_of


@pytest.mark.parametrize(
    ("sizes", "fused", "blocks"),
    [
        ([1] * 7, True, [3, 3, 1]),
        ([6, 6, 6], True, [1, 1, 1]),
        ([4, 4, 4, 99, 1, 1], True, [2, 1, 1, 2]),
        ([4, 4, 4, 99, 1, 1], False, [3, 3]),
        ([], True, []),
    ],
)
def test_blocks_have_few_rows_and_in_a_fused_pool_few_bytes(sizes, fused, blocks):
    work = pa.table(
        {"key": [str(number) for number in range(len(sizes))], "size": pa.array(sizes, pa.int64())}
    )
    pool = Pool(1, 1.0, 0.0, 1.0, rows_per_block=3, block_bytes=10, fused=fused)
    cut = [*blocks_of(work, pool)]
    assert [block.num_rows for block in cut] == blocks
    assert [key for block in cut for key in block["key"].to_pylist()] == work["key"].to_pylist()
