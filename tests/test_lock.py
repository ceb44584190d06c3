"""requirements.lock matches pyproject.toml: every requirement is pinned to a release that it allows.

After an intended change run `make lock`.
"""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.source_tree import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def required() -> list[str]:
    """Return the requirements of imgtx and of all its extras, which may name each other."""
    extras = PROJECT["optional-dependencies"].values()
    found = {*PROJECT["dependencies"], *(line for extra in extras for line in extra)}
    return sorted(line for line in found if Requirement(line).name != PROJECT["name"])


def pinned() -> list[Requirement]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("line", required())
def test_each_requirement_is_pinned_to_an_allowed_version(line):
    requirement = Requirement(line)
    pins = [pin for pin in pinned() if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
    assert pins, f"requirements.lock lacks {requirement.name}: make lock"
    # One for each Python version that needs its own.
    for pin in pins:
        (version,) = (specifier.version for specifier in pin.specifier)
        assert requirement.specifier.contains(version, prereleases=True), f"{pin} is not {line}: make lock"


def test_the_lock_pins_exactly_and_each_environment_once():
    seen = set()
    for pin in pinned():
        assert re.fullmatch(r"==[\w.+]+", str(pin.specifier)), f"{pin} is no pin"
        assert pin.url is None
        key = (canonicalize_name(pin.name), str(pin.marker))
        assert key not in seen, f"{pin} is there twice"
        seen.add(key)
