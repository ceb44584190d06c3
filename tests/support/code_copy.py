"""A copy of the code with made-up tasks, added by the files and lines that the documentation asks for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.cluster.environment import CODE, PACKAGES

MADE_UP = Path(__file__).parent / "made_up"

# file of made_up/ -> (its place, (the table's file, a line of it, what follows that line from now on))
FLIP = {
    "flip.py": (
        "pipeline/tasks/flip.py",
        ("pipeline/tasks/__init__.py", "        INPAINTING,\n", "        FLIP,\n"),
        "from pipeline.tasks.flip import FLIP\n",
    )
}
COLOURS = {
    "colours.py": (
        "pipeline/tasks/colours.py",
        ("pipeline/tasks/__init__.py", "        INPAINTING,\n", "        COLOURS,\n"),
        "from pipeline.tasks.colours import COLOURS\n",
    ),
    "colour_table.py": (
        "pipeline/sources/colour_table.py",
        ("pipeline/sources/__init__.py", "for kind in (IMAGES, PROMPTS", ", COLOUR_TABLE"),
        "from pipeline.sources.colour_table import COLOUR_TABLE\n",
    ),
    "flat.py": (
        "imgtx/models/adapters/flat.py",
        ("imgtx/models/adapters/__init__.py", "(spandrel, diffusers, transformers, torchscript", ", flat"),
        "from imgtx.models.adapters import flat\n",
    ),
}


class CodeCopy:
    """A copy of the packages in a folder, with some of MADE_UP added."""

    def __init__(self, root: Path, added: dict[str, tuple]):
        self.root = root
        root.mkdir(exist_ok=True)
        for package in PACKAGES:
            shutil.copytree(CODE / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "requirements.lock", ".rayignore"):
            shutil.copy(CODE / file, root / file)
        for name, (place, (table, line, more), imported) in added.items():
            shutil.copy(MADE_UP / name, root / place)
            text = (root / table).read_text()
            assert text.count(line) == 1, f"{table} has no line {line!r}"
            text = text.replace(line, line + more)
            first = text.index("\nfrom ") + 1
            (root / table).write_text(text[:first] + imported + text[first:])

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen:
        """Start its `imgtx` in a process group of its own."""
        environment = os.environ | {"PYTHONPATH": str(self.root), "RAY_worker_niceness": "0"} | variables
        return subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", *arguments],
            cwd=self.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def imgtx(self, *arguments: str, code: int = 0) -> str:
        """Run its `imgtx` to the end and return the output."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=600)
        assert process.returncode == code, out + err
        return out

    def python(self, *arguments: str) -> str:
        """Run Python on it and return the output."""
        command = [sys.executable, *arguments]
        environment = os.environ | {"PYTHONPATH": str(self.root)}
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout
