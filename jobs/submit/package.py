"""What travels to a cluster: imgtx's own code, its weights and the spec files of one command. Never data.

    imgtx/ pipeline/ jobs/     as they run here
    specs/*.toml               what the command names
    requirements.lock          what `packages` pins the cluster to

The package is one zip file; the same files make the same bytes, so that Ray uploads them once.
"""

import re
import zipfile
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from imgtx.errors import UsageError
from pipeline.cluster.environment import CODE, PACKAGES

IGNORE, LOCK = ".rayignore", "requirements.lock"
ALWAYS_IGNORED = "__pycache__/\n.*_cache/\n"
MOST_BYTES = 100 << 20  # before compression: Ray keeps packages in the memory of the head
NAMED = 5  # of the largest files, where there are too many bytes
EPOCH = (1980, 1, 1, 0, 0, 0)

# Whether a path, relative to the code's root, is left out. Ray's own matcher, which `jobs/submit/head.py` hands over.
Ignored = Callable[[str], bool]


def ignore_lines(root: Path) -> list[str]:
    """Patterns of `.rayignore`, as in .gitignore; without the file only caches are left out."""
    file = root / IGNORE
    return [*ALWAYS_IGNORED.splitlines(), *(file.read_text("utf-8").splitlines() if file.is_file() else ())]


def files_to_ship(root: Path, ignored: Ignored, extra: Mapping[str, Path]) -> dict[str, Path]:
    """Name in the package -> file here; UsageError, which names the largest, where they are too large together.

    `root` holds the packages: a clone, or site-packages.
    """
    found: dict[str, Path] = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_file() and not ignored(name):
                found[name] = path
    if (root / LOCK).is_file():
        found[LOCK] = root / LOCK
    found |= extra
    _check_size(found)
    return found


def write_package(path: Path, files: Mapping[str, Path]) -> None:
    """One zip file; its bytes depend on names and contents alone."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            file.writestr(entry, files[name].read_bytes(), zipfile.ZIP_DEFLATED, 1)


def packages(root: Path) -> list[str]:
    """Lines of a requirements file: what imgtx asks for, at the versions of its lock, without Ray.

    Ray is the cluster's own and cannot be changed under it. What a node has in the right version pip leaves alone, so
    that on an image of imgtx nothing is installed. UsageError where the lock is missing.
    """
    if not (root / LOCK).is_file():
        raise UsageError(
            f"no {LOCK} beside imgtx in {root}, so there are no versions to pin: give --packages image, or submit from "
            "a clone"
        )
    try:
        wanted = [line for line in requires("imgtx") or () if "extra ==" not in line]
    except PackageNotFoundError as error:
        raise UsageError(
            "imgtx is not installed here, so what it needs is not known: pip install --editable ., or give "
            "--packages image"
        ) from error
    names = [line for line in wanted if not re.match(r"ray\b", line)]
    return [*sorted(names), f"-c ${{RAY_RUNTIME_ENV_CREATE_WORKING_DIR}}/{LOCK}"]


def _check_size(files: Mapping[str, Path]) -> None:
    sizes = {name: path.stat().st_size for name, path in files.items()}
    if (total := sum(sizes.values())) <= MOST_BYTES:
        return
    largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:NAMED]
    named = ", ".join(f"{name} {sizes[name] / 1e6:.1f} MB" for name in largest)
    raise UsageError(
        f"the code to ship is {total / 1e6:.0f} MB, the most is {MOST_BYTES / 1e6:.0f}; the largest files: {named}: "
        f"name what the job does not need in {CODE / IGNORE}"
    )
