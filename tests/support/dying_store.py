"""A store whose process is killed during a change."""

from pipeline.storage.store import Store


class Killed(BaseException):
    """Like SIGKILL: nothing catches it."""


class DyingStore:
    """A store whose process dies at its n-th change, before or after the change takes effect."""

    def __init__(self, store: Store, changes: int, *, after: bool):
        self._store, self._left, self._after = store, changes, after
        self.read, self.list = store.read, store.list

    def write(self, key: str, data: bytes) -> None:
        self._change(lambda: self._store.write(key, data))

    def delete(self, key: str) -> None:
        self._change(lambda: self._store.delete(key))

    def _change(self, change) -> None:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Killed
        change()
        if self._left == 0:
            raise Killed
