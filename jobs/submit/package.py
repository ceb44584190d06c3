"""The code package of a job: imgtx's own code, its weights and the spec files of one command. Never data.

    imgtx/ pipeline/ jobs/     as they run here
    specs/*.toml               the spec files that the command names
    requirements.lock          the versions to which `packages` pins the cluster

The package is one zip file; the same files give the same bytes, so Ray uploads them once.
"""

import re
import zipfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from pathspec import GitIgnoreSpec

from imgtx.errors import UsageError
from pipeline.cluster.environment import CODE, PACKAGES

IGNORE, LOCK = ".rayignore", "requirements.lock"
ALWAYS_IGNORED = ("__pycache__/", ".*_cache/")
# Before compression: Ray keeps packages in the memory of the head.
MAX_BYTES = 100 << 20
# How many of the largest files an error names.
NAMED = 5
EPOCH = (1980, 1, 1, 0, 0, 0)


def files_to_ship(root: Path, extra: Mapping[str, Path]) -> dict[str, Path]:
    """Return the files of the package: name in the package -> path here.

    root: the folder that holds imgtx's packages, a clone or site-packages. Its `.rayignore` leaves files out, as a
    .gitignore does. Raises UsageError, which names the largest files, if they are too large together.
    """
    ignored = GitIgnoreSpec.from_lines(_ignore_lines(root))
    found: dict[str, Path] = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_file() and not ignored.match_file(name):
                found[name] = path
    if (root / LOCK).is_file():
        found[LOCK] = root / LOCK
    found |= extra
    _check_size(found)
    return found


def _ignore_lines(root: Path) -> list[str]:
    """Return the patterns of `.rayignore`; without the file only caches are left out."""
    file = root / IGNORE
    return [*ALWAYS_IGNORED, *(file.read_text("utf-8").splitlines() if file.is_file() else ())]


def write_package(path: Path, files: Mapping[str, Path]) -> None:
    """Write the files as one zip file, whose bytes depend on names and contents only."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            file.writestr(entry, files[name].read_bytes(), zipfile.ZIP_DEFLATED, 1)


def packages(root: Path) -> list[str]:
    """Return the lines of a requirements file: imgtx's dependencies at the versions of its lock, without Ray.

    Ray belongs to the cluster and cannot be replaced while it runs. pip keeps packages that a node has in the right
    version, so on an image of imgtx it installs nothing. Raises UsageError if the lock is missing.
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
            "imgtx is not installed here, so its dependencies are unknown: pip install --editable ., or give "
            "--packages image"
        ) from error
    names = [line for line in wanted if not re.match(r"ray\b", line)]
    return [*sorted(names), f"-c ${{RAY_RUNTIME_ENV_CREATE_WORKING_DIR}}/{LOCK}"]


def _check_size(files: Mapping[str, Path]) -> None:
    sizes = {name: path.stat().st_size for name, path in files.items()}
    if (total := sum(sizes.values())) <= MAX_BYTES:
        return
    largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:NAMED]
    named = ", ".join(f"{name} {sizes[name] / 1e6:.1f} MB" for name in largest)
    raise UsageError(
        f"the code package would be {total / 1e6:.0f} MB and the limit is {MAX_BYTES / 1e6:.0f} MB; the largest files "
        f"are {named}: list what the job does not need in {CODE / IGNORE}"
    )
