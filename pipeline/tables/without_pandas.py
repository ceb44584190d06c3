"""Keep pyarrow from importing pandas, which planning and the stages do not use."""

import sys
from importlib.abc import MetaPathFinder


def skip_pandas() -> None:
    """Let pyarrow look for pandas now, find none and not look again; call it before the first Arrow value.

    pyarrow looks for pandas once in a process, at the first value of any kind that it converts, and imports it where it
    is installed. That takes as much CPU time as planning a thousand images. A later `import pandas` works as always,
    and pyarrow uses it after the first conversion from or to pandas. Does nothing where pandas is imported already.
    """
    if "pandas" in sys.modules:
        return
    absent = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        import pyarrow

        pyarrow.scalar(0)
    finally:
        sys.meta_path.remove(absent)


class _Absent(MetaPathFinder):
    """Say that pandas is not installed."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pyarrow is to do without pandas", name=fullname)
