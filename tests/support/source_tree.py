"""The repository's files, its Python modules, and their imports."""

import ast
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Each may import itself and those before it.
LAYERS = ("imgtx", "pipeline", "jobs")


@dataclass(frozen=True)
class Module:
    """A Python file: its path relative to the root, its dotted name, its syntax tree."""

    path: str
    name: str
    tree: ast.Module

    @property
    def layer(self) -> str:
        return self.path.split("/")[0]


@cache
def files() -> tuple[str, ...]:
    """Return every file that git tracks or would track: paths relative to the root."""
    listed = listed_by_git()
    paths = found_by_walking() if listed is None else listed
    return tuple(sorted(path for path in set(paths) if (ROOT / path).is_file()))


def listed_by_git() -> list[str] | None:
    """Return git's list; None without git and in an unpacked archive, which is no repository."""
    command = [
        # Otherwise git refuses another user's checkout, as in a container.
        *("git", "-c", "safe.directory=*"),
        *("ls-files", "-z", "--cached", "--others", "--exclude-standard"),
    ]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return [path for path in listed.stdout.split("\0") if path] or None


def found_by_walking() -> Iterator[str]:
    """Return the same without git, leaving out what .gitignore names."""
    for folder, folders, names in os.walk(ROOT):
        inside = Path(folder).relative_to(ROOT)
        folders[:] = [name for name in folders if name != ".git" and not ignored(inside / name, folder=True)]
        yield from ((inside / name).as_posix() for name in names if not ignored(inside / name))


def ignored(path: Path, *, folder: bool = False) -> bool:
    """Return whether .gitignore excludes it: patterns match names, with a leading slash paths; `x/` folders."""
    lines = [line for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split("\n") if line]
    patterns = [line.rstrip("/") for line in lines if folder or not line.endswith("/")]
    return any(fnmatch(f"/{path.as_posix()}" if p[0] == "/" else path.name, p) for p in patterns)


@cache
def modules() -> tuple[Module, ...]:
    return tuple(
        Module(path, path.removesuffix(".py").removesuffix("/__init__").replace("/", "."), parse(path))
        for path in files()
        if path.endswith(".py")
    )


def source_modules() -> list[Module]:
    """Return the modules of the three layers."""
    return [module for module in modules() if module.layer in LAYERS]


def parse(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=path)


def imports(tree: ast.AST, *, lazy: bool = True) -> set[str]:
    """Return the dotted names that `tree` imports; without `lazy` only those at the module's own import.

    `from a import b` yields both `a` and `a.b`, because `b` may be a module.
    """
    names: set[str] = set()
    for node in ast.walk(tree) if lazy else _run_at_import(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "imports are absolute here: from package.module import name"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def _run_at_import(tree: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        found += [node, *_run_at_import(node)]
    return found


def packages(names: set[str]) -> set[str]:
    """Return the top-level packages of dotted names."""
    return {name.split(".")[0] for name in names}
