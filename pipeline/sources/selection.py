"""Choose the keys of a source that a run takes: by `--include`, `--exclude`, `--keys`, and what SOURCE itself names.

A selection decides no pixels: what it leaves out is not looked at. Its rows and outputs stay, and it does not count as
vanished.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.sources.globs import Globs, common_beginning, lengths_of, parse_glob, plain_start
from pipeline.sources.key_list import KeyList
from pipeline.spec import RunSpec
from pipeline.tables.rows import blanks
from pipeline.tables.schemas import EXCLUDED, HIDDEN, LISTED, SKIPPED

# What file managers, archivers and version control keep beside people's own files.
HIDDEN_NAMES = ("._*", "@eaDir", "__MACOSX", ".Trash*", ".thumbnails", ".git")
INCLUDE, EXCLUDE = "--include", "--exclude"


@dataclass(frozen=True)
class Selection:
    """Which keys of a source are taken.

    include: globs of which a key must match one, if there are any. exclude: globs that it must not match. glob: what
    SOURCE names inside its root, if it is not all. keys: a list that a key must be in, if there is one.

    Names that match HIDDEN_NAMES are left out, unless `include` or `glob` spells how they begin, as in a shell: `.*`
    and `@eaDir/*.jpg` do, `*.jpg` does not. What `keys` or a `glob` without wildcards names is never hidden.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    glob: str = ""
    keys: KeyList | None = None

    @property
    def is_default(self) -> bool:
        """Whether only hidden names are left out."""
        return not (self.include or self.exclude or self.glob or self.keys)

    def describe(self) -> str:
        """Return what chooses the files, for messages: `--include *.jpg takes`."""
        given = [f"{INCLUDE} {glob}" for glob in self.include]
        given += [f"SOURCE {self.glob}"] if self.glob else []
        given += [f"--keys {self.keys.uri}"] if self.keys else []
        if not given:
            return f"{EXCLUDE} {' '.join(self.exclude)} leaves"
        return f"{' and '.join(given)} {'take' if given[1:] else 'takes'}"

    def check(self) -> None:
        """Raise UsageError for a glob that cannot match anything, or a list of keys that cannot be read."""
        _ = self._include, self._exclude, self._source
        if self.keys:
            self.keys.check()

    @cached_property
    def named(self) -> str:
        """The one key that SOURCE names; "" where it is a folder or has wildcards."""
        return self._source.globs[0].key if self._source else ""

    @cached_property
    def beginning(self) -> str:
        """What every key that is taken begins with."""
        of_source, of_include = (
            common_beginning([glob.beginning for glob in globs.globs])
            for globs in (self._source, self._include)
        )
        return of_include if of_include.startswith(of_source) else of_source

    def enters(self, folder: str) -> bool:
        """Return whether anything below a folder can be taken."""
        return not (self._exclude.matches_folder(folder) or self._always_hidden.matches_folder(folder))

    def takes(self, keys: pa.Array) -> np.ndarray:
        """Return which keys are taken: bool (keys,)."""
        taken = ~(self._hides(keys) | self._exclude.matches(keys)) & self._includes(keys)
        return taken & self.keys.has(keys) if self.keys else taken

    def divide(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        """Return the rows of a batch of INVENTORY that are taken, and LISTED rows for what is not, `keys` aside.

        Such a row is a file or a whole folder, whose key ends in a slash; its status is `skipped`, its reason `hidden`
        or `excluded`.
        """
        keys = batch.column("key")
        dropped = self._hides(keys) | self._exclude.matches(keys)
        outside = ~dropped & ~self._includes(keys)
        if not (dropped.any() or outside.any()):
            return batch, _left_out((), ())
        matched, others = keys.filter(pa.array(dropped)), keys.filter(pa.array(outside))
        hidden, excluded = self._hidden.tops(matched), self._exclude.tops(matched)
        is_hidden = pa.array(lengths_of(hidden) <= lengths_of(excluded))
        lists = (
            (HIDDEN, pc.unique(hidden.filter(is_hidden))),
            (EXCLUDED, pc.unique(excluded.filter(pc.invert(is_hidden)))),
            (EXCLUDED, others),
        )
        taken = batch.filter(pa.array(~(dropped | outside)))
        return taken, _left_out([reason for reason, _ in lists], [tops for _, tops in lists])

    def _hides(self, keys: pa.Array) -> np.ndarray:
        if not self._revealing:
            return self._hidden.matches(keys)
        revealed = self._revealing.matches(keys) & ~self._always_hidden.matches(keys)
        return self._hidden.matches(keys) & ~revealed

    def _includes(self, keys: pa.Array) -> np.ndarray:
        included = np.ones(len(keys), bool)
        for globs in (self._source, self._include):
            if globs:
                included &= globs.matches(keys)
        return included

    @cached_property
    def _source(self) -> Globs:
        return Globs((parse_glob(self.glob, "SOURCE", anchored=True),) if self.glob else ())

    @cached_property
    def _include(self) -> Globs:
        return Globs.parse(self.include, INCLUDE)

    @cached_property
    def _exclude(self) -> Globs:
        return Globs.parse(self.exclude, EXCLUDE)

    @cached_property
    def _hidden(self) -> Globs:
        return Globs.parse(() if self.keys or self.named else HIDDEN_NAMES, "hidden")

    @cached_property
    def _revealing(self) -> Globs:
        """The globs that spell how a hidden name begins."""
        globs = (*self._source.globs, *self._include.globs)
        return Globs(tuple(glob for glob in globs if any(map(_spells, glob.parts))))

    @cached_property
    def _always_hidden(self) -> Globs:
        """The hidden names that no glob spells."""
        parts = [part for glob in self._revealing.globs for part in glob.parts]
        return Globs(
            tuple(glob for glob in self._hidden.globs if not any(_meet(part, glob.text) for part in parts))
        )


def selection_of(spec: RunSpec) -> Selection:
    """Return the selection of a run's spec; opens nothing."""
    keys = KeyList(spec.keys, spec.source, spec.endpoint_url) if spec.keys else None
    return Selection(tuple(spec.include or ()), tuple(spec.exclude or ()), spec.source_glob or "", keys)


def _spells(part: str) -> bool:
    return any(_meet(part, name) for name in HIDDEN_NAMES)


def _meet(part: str, hidden: str) -> bool:
    """Return whether a part of a glob begins, before any wildcard, as some names of a hidden glob do."""
    start, begins = plain_start(part)[0], plain_start(hidden)[0]
    return bool(start) and (start.startswith(begins) or begins.startswith(start))


def _left_out(reasons: Sequence[str], keys: Sequence[pa.Array]) -> pa.RecordBatch:
    """Return LISTED rows that are skipped, for each reason those of one array of keys."""
    counts = [len(array) for array in keys]
    count = sum(counts)
    columns = dict(zip(LISTED.names, blanks(LISTED, LISTED.names, count), strict=True))
    if count:
        columns["key"] = pa.concat_arrays(keys)
        columns["status"] = pa.repeat(SKIPPED, count)
        columns["reason"] = pa.concat_arrays(
            [pa.repeat(reason, many) for reason, many in zip(reasons, counts, strict=True)]
        )
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=LISTED)
