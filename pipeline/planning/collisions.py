"""Find the outputs that cannot have their plain name, over a whole listing kept on disk.

Two names clash if a file system could take one for the other, or if one is a folder of the other. Only hashes of
folded names are compared, bucket by bucket of that hash: 17 bytes an image, no text. A name that clashes moves up a
level, which gives it a longer name in another bucket; this repeats until no name moves. After the first round only
members of clashing groups are left, so an archive without clashes is read once.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.planning.names import DIGITS, fold, folder_hashes, hashed_names, plain_names, too_long
from pipeline.tables.hashing import among, hash64
from pipeline.tables.spill import Spill

# The name of a key at a level, both as hashes. `must`: it climbs even if no other name clashes with it.
_NAME = pa.schema([("name", pa.uint64()), ("key", pa.uint64()), ("level", pa.int8()), ("must", pa.bool_())])
_CLIMB = pa.schema([("key", pa.uint64()), ("level", pa.int8())])
_FOLDER = pa.schema([("name", pa.uint64())])


class NameCollisions:
    """The level of each key's output name.

    Call `add` for all keys, then `settle`, then `names` and `hashes`. A key that is added twice counts once.
    requested: as in `names.plain_names`.
    """

    def __init__(self, requested: str):
        self._requested = requested
        # One for each round: the names given in it, by the name's hash.
        self._names = [Spill(_NAME)]
        # One for each round: the names that keys climbed away from.
        self._left: list[Spill] = []
        # One for each round: the keys that climbed, by the key's hash.
        self._climbed: list[Spill] = []
        self._folders = Spill(_FOLDER)

    def add(self, keys: pa.Array, hashes: np.ndarray) -> None:
        """Add keys of images, with their hashes."""
        self.add_names(plain_names(keys, self._requested), hashes)

    def add_names(self, plain: pa.Array, hashes: np.ndarray) -> None:
        """Add the names that keys have, given by their hashes, at the lowest level."""
        folded = fold(plain)
        folders = folder_hashes(folded)
        self._folders.add(_table(_FOLDER, folders), folders)
        names = hash64(folded)
        columns = names, hashes, np.zeros(len(plain), np.int8), too_long(plain)
        self._names[0].add(_table(_NAME, *columns), names)

    def settle(self, keys_of: Callable[[int], tuple[pa.Array, np.ndarray]], buckets: int) -> None:
        """Let names climb until none clashes.

        keys_of: returns the added keys of a bucket of their hash, with these hashes. A key that it lacks keeps names
        free, and gets none.
        """
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
        """Return the output names of `keys`: all of one bucket (index, buckets) of `hashes`, their hashes."""
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
        """Return the sorted hashes of the folded output names in one bucket of these hashes."""
        return self._remaining(index, buckets)["name"].to_numpy()

    def _climb(self, buckets: int) -> bool:
        """Move the names that clash up a level; return whether there were any.

        After the first round only buckets that received names can have new clashes.
        """
        climbed, left = Spill(_CLIMB), Spill(_NAME)
        for index in range(buckets):
            if self._left and not len(self._names[-1].read(index, buckets)):
                continue
            remaining = self._remaining(index, buckets)
            folders = self._folders.read(index, buckets)["name"].to_numpy()
            names, levels = remaining["name"].to_numpy(), remaining["level"].to_numpy()
            climbs = np.asarray(remaining["must"]) | _clashes(names, folders)
            climbs &= levels < len(DIGITS) - 1
            climbing = remaining.filter(pa.array(climbs))
            left.add(climbing, names[climbs])
            keys = climbing["key"].to_numpy()
            climbed.add(_table(_CLIMB, keys, levels[climbs] + np.int8(1)), keys)
        self._left.append(left)
        self._climbed.append(climbed)
        return climbed.num_rows > 0

    def _remaining(self, index: int, buckets: int) -> pa.Table:
        """Return the names of a bucket that no key has climbed away from, each once."""
        names = pa.concat_tables([spill.read(index, buckets) for spill in self._names])
        left = pa.concat_tables([_NAME.empty_table(), *(spill.read(index, buckets) for spill in self._left)])
        name, key, level = (
            np.concatenate([names[c].to_numpy(), left[c].to_numpy()]) for c in _NAME.names[:3]
        )
        gone = np.arange(len(name)) >= len(names)
        # Of equal rows the one that is gone comes first, and `first` keeps only that.
        order = np.lexsort((~gone, level, key, name))
        name, key, level = name[order], key[order], level[order]
        first = np.ones(len(order), bool)
        first[1:] = (name[1:] != name[:-1]) | (key[1:] != key[:-1]) | (level[1:] != level[:-1])
        return names.take(order[first & ~gone[order]])


def _clashes(names: np.ndarray, folders: np.ndarray) -> np.ndarray:
    """Return which of these sorted hashes are shared or belong to a folder: bool (names,).

    Equal hashes of unequal names (probability 2**-64 a pair) only make two names longer than necessary.
    """
    shared = among(names, np.sort(folders))
    same = names[1:] == names[:-1]
    shared[1:] |= same
    shared[:-1] |= same
    return shared


def _levels(keys: np.ndarray, climbed: pa.Table) -> np.ndarray:
    """Return the level that each key, given as a hash, has climbed to, 0 where it has not: int8 (keys,)."""
    known = climbed.sort_by("key")
    hashes, levels = known["key"].to_numpy(), known["level"].to_numpy()
    found = among(keys, hashes)
    result = np.zeros(len(keys), np.int8)
    result[found] = levels[np.searchsorted(hashes, keys[found])]
    return result


def _table(schema: pa.Schema, *columns: np.ndarray) -> pa.Table:
    return pa.table([pa.array(column) for column in columns], schema=schema)
