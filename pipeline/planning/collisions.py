"""Which outputs cannot have their plain name, decided over a whole listing that lies on disk.

Two names clash if a file system could take one for the other, or one is a folder of the other. What decides is the
hash of the folded name alone, so names are compared bucket by bucket of that hash: 17 bytes an image, no text. Who
clashes climbs a level, which gives it another name, in another bucket; that goes on until nobody climbs. After the
first round only members of groups are left, so archives without clashes are read once.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.planning.names import DIGITS, fold, folder_hashes, hashed_names, plain_names, too_long
from pipeline.tables.hashing import among, hash64
from pipeline.tables.spill import Spill

# The name of a key at a level, both as hashes; `must`: whatever others are called, it climbs.
_NAME = pa.schema([("name", pa.uint64()), ("key", pa.uint64()), ("level", pa.int8()), ("must", pa.bool_())])
_CLIMB = pa.schema([("key", pa.uint64()), ("level", pa.int8())])
_FOLDER = pa.schema([("name", pa.uint64())])


class NameCollisions:
    """Levels of the names of distinct keys; a key that is added twice is one key.

    First `add` all, then `settle`, then ask. requested: as in `names.plain_names`.
    """

    def __init__(self, requested: str):
        self._requested = requested
        self._names = [Spill(_NAME)]  # by the name's hash; of each round
        self._left: list[Spill] = []  # what was climbed away from
        self._climbed: list[Spill] = []  # by the key's hash
        self._folders = Spill(_FOLDER)

    def add(self, keys: pa.Array, hashes: np.ndarray) -> None:
        """Some more keys of images, with their hashes."""
        plain = plain_names(keys, self._requested)
        folded = fold(plain)
        folders = folder_hashes(folded)
        self._folders.add(_table(_FOLDER, folders), folders)
        names = hash64(folded)
        columns = names, hashes, np.zeros(len(keys), np.int8), too_long(plain)
        self._names[0].add(_table(_NAME, *columns), names)

    def settle(self, keys_of: Callable[[int], tuple[pa.Array, np.ndarray]], buckets: int) -> None:
        """Let names climb until none clashes. keys_of: the added keys of a bucket of their hash, with these hashes."""
        while self._climb(buckets):
            names = Spill(_NAME)
            for index in range(buckets):
                climbed = self._climbed[-1].read(index, buckets)
                if not len(climbed):
                    continue
                keys, hashes = keys_of(index)
                levels = _levels(hashes, climbed)
                climbs = levels > 0
                keys, levels = keys.filter(pa.array(climbs)), levels[climbs]
                new = hash64(fold(hashed_names(plain_names(keys, self._requested), keys, levels)))
                never = np.zeros(len(keys), bool)
                names.add(_table(_NAME, new, hashes[climbs], levels, never), new)
            self._names.append(names)

    def names(self, keys: pa.Array, hashes: np.ndarray, bucket: tuple[int, int]) -> pa.Array:
        """The output names of keys, which have these hashes, of bucket (index, buckets) of them."""
        names = plain_names(keys, self._requested)
        levels = np.zeros(len(keys), np.int8)
        for climbed in self._climbed:
            levels = np.maximum(levels, _levels(hashes, climbed.read(*bucket)))
        climbs = levels > 0
        if not climbs.any():
            return names
        rows = pa.array(climbs)
        return pc.replace_with_mask(
            names, rows, hashed_names(names.filter(rows), keys.filter(rows), levels[climbs])
        )

    def hashes(self, index: int, buckets: int) -> np.ndarray:
        """Hashes of the folded output names, sorted, of one bucket of these hashes."""
        return self._standing(index, buckets)["name"].to_numpy()

    def _climb(self, buckets: int) -> bool:
        """Send those that clash a level up; whether there are any. Only where names came in can new ones clash."""
        climbed, left = Spill(_CLIMB), Spill(_NAME)
        for index in range(buckets):
            if self._left and not len(self._names[-1].read(index, buckets)):
                continue
            standing = self._standing(index, buckets)
            folders = self._folders.read(index, buckets)["name"].to_numpy()
            names, levels = standing["name"].to_numpy(), standing["level"].to_numpy()
            climbs = np.asarray(standing["must"]) | _clashes(names, folders)
            climbs &= levels < len(DIGITS) - 1
            going = standing.filter(pa.array(climbs))
            left.add(going, names[climbs])
            keys = going["key"].to_numpy()
            climbed.add(_table(_CLIMB, keys, levels[climbs] + np.int8(1)), keys)
        self._left.append(left)
        self._climbed.append(climbed)
        return climbed.num_rows > 0

    def _standing(self, index: int, buckets: int) -> pa.Table:
        """The names of a bucket that nobody has climbed away from, each once."""
        names = pa.concat_tables([spill.read(index, buckets) for spill in self._names])
        left = pa.concat_tables([_NAME.empty_table(), *(spill.read(index, buckets) for spill in self._left)])
        name, key, level = (
            np.concatenate([names[c].to_numpy(), left[c].to_numpy()]) for c in _NAME.names[:3]
        )
        gone = np.arange(len(name)) >= len(names)
        order = np.lexsort(
            (~gone, level, key, name)
        )  # of equals the one that is gone comes first, and stands for all
        name, key, level = name[order], key[order], level[order]
        first = np.ones(len(order), bool)
        first[1:] = (name[1:] != name[:-1]) | (key[1:] != key[:-1]) | (level[1:] != level[:-1])
        return names.take(order[first & ~gone[order]])


def _clashes(names: np.ndarray, folders: np.ndarray) -> np.ndarray:
    """Which of these sorted hashes are shared, or are a folder's: bool (names,).

    Equal hashes of unequal names (a chance of 2**-64 a pair) make two names longer than they need be, no more.
    """
    shared = among(names, np.sort(folders))
    same = names[1:] == names[:-1]
    shared[1:] |= same
    shared[:-1] |= same
    return shared


def _levels(keys: np.ndarray, climbed: pa.Table) -> np.ndarray:
    """The level to which each key, a hash, has climbed, 0 where it has not: int8 (keys,)."""
    known = climbed.sort_by("key")
    hashes, levels = known["key"].to_numpy(), known["level"].to_numpy()
    found = among(keys, hashes)
    result = np.zeros(len(keys), np.int8)
    result[found] = levels[np.searchsorted(hashes, keys[found])]
    return result


def _table(schema: pa.Schema, *columns: np.ndarray) -> pa.Table:
    return pa.table([pa.array(column) for column in columns], schema=schema)
