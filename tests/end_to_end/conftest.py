"""Mark every test with its folder's name: `ray`, `faults`, `cluster`."""

from pathlib import Path

import pytest

FOLDERS = ("ray", "faults", "cluster")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.parent == Path(__file__).parent and item.path.parent.name in FOLDERS:
            item.add_marker(item.path.parent.name)
