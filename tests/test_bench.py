"""Each benchmark documents its command and can be imported, without its extra packages and without effect."""

import ast
import json
import subprocess
import sys

import psutil
import pytest

from bench import plan_million
from bench.pause import paused
from bench.run_all import FULL, QUICK
from bench.tables import PAGE, page_with_tables
from pipeline.ledger.ledger import Ledger
from pipeline.storage.store import open_store
from tests.support.source_tree import ROOT, Module, modules

BENCH = [module for module in modules() if module.layer == "bench"]
# The extra `bench` of pyproject.toml, except psutil, which the tests need too.
EXTRAS = ("matplotlib", "skimage", "spandrel")


def is_program(module: Module) -> bool:
    return any(isinstance(node, ast.If) and "__main__" in ast.dump(node.test) for node in module.tree.body)


@pytest.mark.parametrize("module", BENCH, ids=lambda module: module.path)
def test_each_docstring_names_its_purpose_and_command(module):
    words = ast.get_docstring(module.tree)
    assert words, f"{module.path} has no docstring"
    assert (f"python -m {module.name}" in words) == is_program(module)


def test_run_all_lists_only_existing_benchmarks():
    programs = {module.name.removeprefix("bench.") for module in BENCH if is_program(module)}
    assert {*QUICK} <= {*FULL}
    assert {program for program, *_ in FULL.values()} <= programs
    assert len(FULL) > 3


def test_the_page_has_the_tables_of_the_results():
    assert page_with_tables() == PAGE.read_text()


def test_other_work_is_stopped_while_it_measures_and_continues_after(tmp_path):
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE) as other:
        family = psutil.Process(other.pid)
        while not family.children():
            assert other.poll() is None
        everyone = [family, *family.children()]
        with paused([other.pid]):
            assert {process.status() for process in everyone} == {psutil.STATUS_STOPPED}
        assert psutil.STATUS_STOPPED not in {process.status() for process in everyone}
        other.communicate(b"\n")
    assert other.returncode == 0


def test_a_process_that_cannot_be_paused_is_named_before_any_is_stopped():
    with pytest.raises(SystemExit, match="--pause 999999999: No such process"), paused([999999999]):
        pass


@pytest.mark.parametrize("module", BENCH, ids=lambda module: module.path)
def test_importing_a_benchmark_runs_nothing(module):
    """Statements that do something are under `if __name__`; settings read by a library's import may be made."""
    for node in module.tree.body:
        if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
            assert ast.unparse(node).startswith("os.environ.setdefault("), f"{module.path}:{node.lineno}"
        else:
            assert not isinstance(node, ast.For | ast.While | ast.With | ast.Try | ast.Delete), (
                f"{module.path}:{node.lineno}"
            )


def test_the_ledger_that_planning_is_measured_with_is_one_that_a_run_writes(tmp_path):
    plan_million.write_listing(str(tmp_path), 100)
    plan_million.write_ledger(str(tmp_path), 90)
    found = plan_million.measure("plan, as appended", str(tmp_path))
    assert found["result"] == "new 10 changed 1 failed_before 1 current 88"
    (row, *_) = Ledger(open_store(str(tmp_path))).current(["measures"]).to_pylist()
    assert [name for name, _ in row["measures"]] == ["noise_level"]


def test_results_were_measured_at_a_commit_of_the_history():
    def git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)

    if git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        pytest.skip("the history is not here")
    unknown = set()
    for path in (ROOT / "bench" / "results").glob("*.json"):
        found = json.loads(path.read_text())
        commit = found.get("commit") or found["machine"].rpartition("commit ")[2]
        # Other words than a commit's name are no ancestor.
        if git("merge-base", "--is-ancestor", commit, "HEAD").returncode:
            unknown.add(path.name)
    assert not unknown


def results() -> dict[str, int]:
    """Return the files of bench/results/ and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in (ROOT / "bench" / "results").iterdir()}


def test_benchmarks_can_be_imported_silently_without_the_extras(tmp_path):
    before = results()
    code = (
        "import importlib, sys, threading\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        # None makes an import of it fail.
        f"sys.modules.update(dict.fromkeys({EXTRAS!r}))\n"
        f"for name in {[module.name for module in BENCH]!r}:\n"
        "    importlib.import_module(name)\n"
        "assert 'ray' not in sys.modules or not sys.modules['ray'].is_initialized()\n"
        "assert threading.active_count() == 1\n"
    )
    # Libraries must print nothing either.
    command = [sys.executable, "-B", "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not [*tmp_path.iterdir()]
    assert results() == before
