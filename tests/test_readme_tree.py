"""The file tree in the README is the file tree.

Under the heading `## The file tree` stands one fenced block: two spaces a level, a path a line, what it is.

    imgtx/          the library
      pixels.py     bytes <-> image
    tests/
      unit/         no Ray, no sockets
"""

import re

import pytest

from tests.unit.source_tree import LAYERS, ROOT, files

README = ROOT / "README.md"
HEADING = "## The file tree"


def parse_tree(text: str) -> list[str]:
    """The paths of an indented tree, in order; folders end in a slash. Box-drawing lines indent too."""
    paths: list[str] = []
    folders: list[tuple[int, str]] = []  # (indentation, path) of the open folders
    for line in text.splitlines():
        plain = re.sub(r"[│├└─]", " ", line)
        if not plain.strip():
            continue
        indentation = len(plain) - len(plain.lstrip())
        name = plain.split()[0]
        folders = [(depth, path) for depth, path in folders if depth < indentation]
        path = (folders[-1][1] if folders else "") + name
        paths.append(path)
        if name.endswith("/"):
            folders.append((indentation, path))
    return paths


def readme_tree() -> list[str]:
    text = README.read_text(encoding="utf-8")
    assert HEADING in text, f"README.md needs the heading {HEADING!r} and a fenced tree under it"
    block = re.search(r"^```\w*\n(.*?)^```", text.split(HEADING, 1)[1], re.DOTALL | re.MULTILINE)
    assert block, f"README.md has no fenced block under {HEADING!r}"
    return parse_tree(block[1])


def test_what_the_readme_shows_exists():
    shown = readme_tree()
    assert len(shown) == len(set(shown)), "a path stands twice in the README's tree"
    missing = [path for path in shown if not _exists(path)]
    assert not missing, f"README.md shows what is not there: {missing}"


def test_what_exists_is_shown_in_the_readme():
    shown = set(readme_tree())
    top = {path.split("/")[0] + "/" for path in files() if "/" in path and not path.startswith(".")}
    modules = {
        path
        for path in files()
        if path.endswith(".py") and path.split("/")[0] in LAYERS and not path.endswith("__init__.py")
    }
    missing = sorted((top | modules) - shown)
    assert not missing, f"README.md's tree lacks {missing}"


def _exists(path: str) -> bool:
    found = ROOT / path
    return found.is_dir() if path.endswith("/") else found.is_file()


@pytest.mark.parametrize(
    "text",
    [
        "a/        first\n  b.py    second\n  c/\n    d.py\n\ne/\n  f.py\n",
        "a/\n├── b.py    second\n└── c/\n    └── d.py\ne/\n└── f.py\n",
    ],
)
def test_trees_are_read_as_people_write_them(text):
    assert parse_tree(text) == ["a/", "a/b.py", "a/c/", "a/c/d.py", "e/", "e/f.py"]
