"""Rules for the code: which module may import which, and what no file may contain."""

import ast
import graphlib
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.support import source_tree
from tests.support.source_tree import LAYERS, ROOT, Module, files, imports, modules, packages, source_modules

STAGES = (
    "pipeline.stages.decode",
    "pipeline.stages.transform",
    "pipeline.stages.encode",
    "pipeline.stages.publish",
)

# `python -m imgtx` starts the command line of `jobs`; nothing imports this module.
ENTRY_POINT = "imgtx/__main__.py"

# Where each heavy library may be imported. A CPU worker without torch starts in a tenth of the time and a
# fifth of the memory; storage and Ray are each used in one package, so that they can be replaced there.
STORAGE = ("pipeline/storage/*",)
MAY_IMPORT = {
    "torch": (
        # Inside load().
        "imgtx/__init__.py",
        "imgtx/models/*",
        "imgtx/inference/*",
        "imgtx/probing/*",
        "imgtx/training/*",
        # Inside the actor.
        "pipeline/stages/transform.py",
        # Inside functions.
        "jobs/evaluation/*",
        # Inside probe_model().
        "jobs/models/probe.py",
        "jobs/train/*",
    ),
    "ray": ("pipeline/flow.py", "pipeline/cluster/*", "jobs/train/*", "jobs/submit/head.py"),
    "fsspec": STORAGE,
    "s3fs": STORAGE,
    "botocore": STORAGE,
    "pyarrow": ("pipeline/*", "jobs/*"),
    "click": ("jobs/cli/*", "jobs/inspect/watch.py", "jobs/submit/command.py"),
    "rich": ("jobs/*",),
    "yaml": ("jobs/schedule/*",),
    "pyvips": ("imgtx/codecs/*",),
    "spandrel": ("imgtx/models/adapters/*",),
    "h5py": ("imgtx/training/features/*",),  # inside functions
    "transformers": ("imgtx/models/adapters/*",),
    "diffusers": ("imgtx/models/adapters/*",),
}

# Started without torch and Ray: `imgtx --help`, decode and encode workers, everything that only reads the ledger.
TORCH_FREE = (
    "imgtx",
    "imgtx.degradations.archive",
    "imgtx.models.info",
    "imgtx.degradations.dead_leaves",
    "imgtx.imageops.resize",
    "imgtx.errors",
    "imgtx.imageops.metrics",
    "imgtx.codecs",
    "imgtx.models.sidecar",
    "imgtx.models.references",
    "imgtx.codecs.spool",
    "imgtx.inference.tiling",
    "imgtx.models.weight_file",
    "jobs.cli",
    "jobs.submit.package",
    "jobs.submit.command",
    "jobs.models.admin",
    "jobs.run.driver",
    "jobs.schedule.kubernetes",
    "jobs.inspect.status",
    "jobs.run.spec",
    "jobs.submit.submission",
    "jobs.schedule.systemd",
    "jobs.inspect.watch",
    "pipeline.stages.decode",
    "pipeline.stages.encode",
    "pipeline.sources.images",
    "pipeline.ledger.ledger",
    "pipeline.models.references",
    "pipeline.models.resolve",
    "pipeline.planning.plan",
    "pipeline.stages.publish",
    "pipeline.spec",
    "pipeline.storage.store",
    "pipeline.stages.transform",
    "pipeline.verify",
)

# Split by brackets and wildcards, so that this file does not contain what it forbids.
REGISTRY = re.compile(r"\b(pypi|pythonhosted|npmjs|debian)[.]org\b|\bdownload[.]pytorch\b")
MACHINE_PATH = re.compile(r"(?<![\w.~}/-])/(work|root|opt/wheels|opt/pypi|home/\w+)/")


def by_path(module: Module) -> str:
    return module.path


def package_of(name: str) -> str:
    """Return the sub-package of a module; one directly under `imgtx`, `pipeline` or `jobs` counts as its own."""
    return ".".join(name.split(".")[:2])


class TestFiles:
    """The files that the rules apply to are found, also where git is absent or refuses."""

    def test_there_are_files_of_every_layer(self):
        assert {*LAYERS, "tests", "bench"} <= {module.layer for module in modules()}

    def test_walking_finds_what_git_lists(self):
        listed = source_tree.listed_by_git()
        if listed is None:
            pytest.skip("git lists nothing here")
        present = {path for path in listed if (ROOT / path).is_file()}
        assert present <= {*source_tree.found_by_walking()}

    @pytest.mark.parametrize(
        ("path", "folder", "expected"),
        [
            (".venv", True, True),
            ("a/b/__pycache__", True, True),
            ("imgtx.egg-info", True, True),
            ("out", True, True),
            ("out", False, False),
            ("jobs/out", True, False),
            ("README.md", False, False),
        ],
    )
    def test_gitignore_is_read_without_git(self, path, folder, expected):
        assert source_tree.ignored(Path(path), folder=folder) == expected

    @pytest.mark.parametrize("git", ["missing", "refuses"])
    def test_git_is_not_needed(self, git, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        if git == "refuses":
            (tmp_path / "git").write_text("#!/bin/sh\nexit 128\n")
            (tmp_path / "git").chmod(0o755)
        assert source_tree.listed_by_git() is None
        assert "pipeline/flow.py" in source_tree.files.__wrapped__()


class TestImports:
    @pytest.mark.parametrize("module", source_modules(), ids=by_path)
    def test_imports_point_downward(self, module):
        allowed = LAYERS if module.path == ENTRY_POINT else LAYERS[: LAYERS.index(module.layer) + 1]
        upward = packages(imports(module.tree)) & ({*LAYERS, "tests", "bench", "infra"} - {*allowed})
        assert not upward, f"{module.path} imports {sorted(upward)}; it may import {allowed}"

    def test_there_are_no_cycles(self):
        names = {module.name for module in source_modules()}
        graph = {
            module.name: {name for name in imports(module.tree) if name in names and name != module.name}
            for module in source_modules()
        }
        # `from pipeline import x` names the package only to reach x.
        for package in LAYERS:
            for targets in graph.values():
                targets.discard(package)
        # Raises CycleError, which names the cycle.
        graphlib.TopologicalSorter(graph).prepare()

    def test_packages_do_not_import_in_a_circle(self):
        graph: dict[str, set[str]] = {}
        names = {module.name for module in source_modules()}
        for module in source_modules():
            targets = {package_of(name) for name in imports(module.tree) if name in names}
            graph.setdefault(package_of(module.name), set()).update(targets - {package_of(module.name)})
        for targets in graph.values():
            targets -= {*LAYERS}
        # Raises CycleError, which names the cycle.
        graphlib.TopologicalSorter(graph).prepare()

    @pytest.mark.parametrize("module", [m for m in source_modules() if m.name in STAGES], ids=by_path)
    def test_stages_do_not_know_each_other(self, module):
        others = {*STAGES} - {module.name}
        assert not imports(module.tree) & others

    @pytest.mark.parametrize("library", MAY_IMPORT)
    def test_heavy_libraries_are_imported_only_where_they_may_be(self, library):
        for module in source_modules():
            if library in packages(imports(module.tree)):
                assert any(fnmatch(module.path, pattern) for pattern in MAY_IMPORT[library]), (
                    f"{module.path} imports {library}; only {MAY_IMPORT[library]} may"
                )

    def test_safetensors_for_torch_counts_as_torch(self):
        for module in source_modules():
            if "safetensors.torch" in imports(module.tree):
                assert any(fnmatch(module.path, pattern) for pattern in MAY_IMPORT["torch"]), module.path

    @pytest.mark.parametrize(
        "path", ["imgtx/__init__.py", "pipeline/stages/transform.py", "jobs/evaluation/super_resolution.py"]
    )
    def test_torch_is_imported_late_where_the_file_also_serves_without_it(self, path):
        (module,) = [module for module in modules() if module.path == path]
        assert "torch" not in packages(imports(module.tree, lazy=False))

    def test_the_cheap_side_starts_without_torch_and_ray(self):
        missing = {*TORCH_FREE} - {module.name for module in modules()}
        assert not missing, f"TORCH_FREE names what is not there: {sorted(missing)}"
        code = (
            f"import importlib, sys\nfor name in {TORCH_FREE!r}:\n"
            "    importlib.import_module(name)\n"
            "    heavy = {'torch', 'ray'} & sys.modules.keys()\n"
            "    assert not heavy, f'import {name} brings {sorted(heavy)}'\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr.splitlines()[-1]

    def test_the_private_api_of_ray_is_used_in_one_file(self):
        using = {
            module.path
            for module in source_modules()
            if "ray._private" in (ROOT / module.path).read_text(encoding="utf-8")
        }
        assert using == {"pipeline/cluster/private.py"}

    def test_the_dataset_of_a_run_is_built_in_one_file(self):
        calling = {
            module.path
            for module in source_modules()
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Attribute) and node.attr == "map_batches"
        }
        assert calling == {"pipeline/flow.py"}


class TestNamesAndWords:
    def test_no_file_has_a_meaningless_name(self):
        forbidden = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "handler"}
        assert not [module.path for module in modules() if module.name.split(".")[-1] in forbidden]

    def test_no_file_names_a_registry_or_a_path_of_one_machine(self):
        found = []
        for path in files():
            data = (ROOT / path).read_bytes()
            if b"\0" in data:
                continue
            for number, line in enumerate(data.decode("utf-8").splitlines(), 1):
                if REGISTRY.search(line) or MACHINE_PATH.search(line):
                    found.append(f"{path}:{number}: {line.strip()}")
        assert not found, "\n".join(found)

    @pytest.mark.parametrize(
        "line",
        ["see /{}/data/x".format("work"), "'/{}/.cache'".format("root"), "//{}.org/simple".format("pypi")],
    )
    def test_the_patterns_find_what_they_forbid(self, line):
        assert REGISTRY.search(line) or MACHINE_PATH.search(line)

    @pytest.mark.parametrize("line", ["s3://bucket/work/x", "~/work/x", "a/root/b", "src/home/me/x"])
    def test_the_patterns_leave_the_rest_alone(self, line):
        assert not REGISTRY.search(line)
        assert not MACHINE_PATH.search(line)

    def test_every_suppression_names_its_rule_and_reason(self):
        suppression = re.compile(r"#\s*(noqa|type:\s*ignore)(?P<rest>.*)")
        reasoned = re.compile(r"(: [A-Z]+\d+|\[[\w-]+\])\s*[-#(].*\w")
        for module in modules():
            for number, line in enumerate((ROOT / module.path).read_text(encoding="utf-8").splitlines(), 1):
                found = suppression.search(line)
                if found and "suppression" not in line:
                    assert reasoned.match(found["rest"]), (
                        f"{module.path}:{number} hides a finding without a reason"
                    )
