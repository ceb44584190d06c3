"""The repository as the rules see it: its files, its Python modules, and what each of them imports."""

import ast
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("imgtx", "pipeline", "jobs")  # each may import itself and those before it


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
    """Every file that git tracks, or would track: paths relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return tuple(sorted(path for path in set(listed.stdout.split("\0")) if path and (ROOT / path).is_file()))


@cache
def modules() -> tuple[Module, ...]:
    return tuple(
        Module(path, path.removesuffix(".py").removesuffix("/__init__").replace("/", "."), parse(path))
        for path in files()
        if path.endswith(".py")
    )


def source_modules() -> list[Module]:
    """The modules of the three layers."""
    return [module for module in modules() if module.layer in LAYERS]


def parse(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=path)


def imports(tree: ast.AST, *, lazy: bool = True) -> set[str]:
    """Dotted names that `tree` imports; without `lazy` only what runs when the module itself is imported.

    `from a import b` yields both `a` and `a.b`: whether `b` is a module is not written there.
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
    """The top-level packages of dotted names."""
    return {name.split(".")[0] for name in names}
