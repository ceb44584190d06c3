"""The stable hash of whole string columns."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.tables.hashing import bucket_of, hash64


def test_hashes_do_not_depend_on_chunks_slices_or_width():
    texts = ["", "a", "b", "ab", "ba", "ä/ö.png", "x" * 5000, "", "a"]
    whole = pa.array(texts)
    expected = hash64(whole)
    assert (hash64(pa.chunked_array([whole[:3], whole[3:]])) == expected).all()
    assert (hash64(pa.array(["before", *texts, "after"])[1:-1]) == expected).all()
    assert (hash64(whole.cast(pa.large_string())) == expected).all()
    assert expected[0] == expected[7]
    assert expected[1] == expected[8]
    assert len(np.unique(expected)) == len(set(texts))


def splitmix64(index: int) -> int:
    mask = 2**64 - 1
    x = index * 0x9E3779B97F4A7C15 & mask
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
    return x ^ (x >> 31)


def test_hashes_never_change():
    # Compacted ledgers of earlier versions are divided into buckets by this hash.
    key = "2019/Ärger.jpg"
    by_definition = sum(splitmix64(256 * i + byte + 1) for i, byte in enumerate(key.encode())) % 2**64
    assert int(hash64(pa.array([key]))[0]) == by_definition


def test_similar_keys_spread_evenly():
    keys = pa.array([f"photos/2019/IMG_{i:06d}.jpg" for i in range(64_000)])
    assert len(np.unique(hash64(keys))) == 64_000
    counts = np.bincount(bucket_of(keys, 64), minlength=64)
    # 1000 +- 6 standard deviations.
    assert 800 < counts.min() <= counts.max() < 1200


def test_buckets_nest():
    keys = pa.array([f"k{i}" for i in range(1000)])
    assert (bucket_of(keys, 16) % 4 == bucket_of(keys, 4)).all()


def test_an_odd_count_of_buckets_is_refused():
    with pytest.raises(ValueError, match="power of two"):
        bucket_of(pa.array(["a"]), 3)
