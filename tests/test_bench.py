"""Each benchmark documents its command and can be imported, without its extra packages and without effect."""

import ast
import json
import os
import subprocess
import sys

import psutil
import pytest

from bench import plan_million
from bench.pause import paused
from bench.quality import BICUBIC, CLEAN_SETS, MEASURED, result_name
from bench.quality_tables import super_resolution_table
from bench.report import is_current
from bench.run_all import FULL, QUICK
from bench.tables import TABLES, pages_with_tables
from imgtx.models.weight_file import file_digest, packaged_folder
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
    for page, text in pages_with_tables().items():
        assert text == page.read_text(), f"{page.name}: run python -m bench.tables"
        for name in TABLES[page]:
            assert text.count(f"<!-- {name}: ") == text.count(f"<!-- end of {name} -->") == 1


def test_each_result_is_one_that_make_bench_measures():
    assert {path.stem for path in (ROOT / "bench" / "results").glob("*.json")} <= {*FULL}


def quality_result(folder, name: str, psnr: float, digest: str) -> None:
    model = MEASURED[name].model
    rows = [
        {"dataset": dataset, "condition": "bicubic", "method": method, "means": {"psnr_y": value}}
        for dataset in CLEAN_SETS
        for method, value in ((model, psnr), (BICUBIC, psnr - 1))
    ]
    values = {
        "machine": "AMD EPYC, 2 CPUs; commit abc1234",
        "commit": "abc1234",
        "model": model,
        "digest": digest,
    }
    result = values | {"parameters": 611_000, "rows": rows}
    (folder / f"{result_name(name)}.json").write_text(json.dumps(result))


def test_a_quality_table_has_the_numbers_of_its_results_and_names_weights_that_are_not_those_of_today(
    tmp_path,
):
    digest = file_digest(packaged_folder() / "sr-x2.safetensors")
    quality_result(tmp_path, "sr-x2", 37.508, digest)
    quality_result(tmp_path, "sr-x3", 33.6, "other")
    # A part of a table is none.
    assert len(super_resolution_table(tmp_path)) == 1
    quality_result(tmp_path, "sr-x4", 31.4, "other")
    quality_result(tmp_path, "sr-x2_ensemble", 37.6, "before")
    lines = {line[0]: line[1:] for line in super_resolution_table(tmp_path)}
    assert lines["x2 bicubic"] == ("", "", *["36.51"] * 4, "abc1234")
    assert lines["**x2 sr-x2**"] == ("0.6 M", "", *["**37.51**"] * 4, "abc1234")
    assert lines["x2 sr-x2, earlier weights `--self-ensemble`"][2:-1] == ("37.60",) * 4
    assert "**x3 sr-x3, earlier weights**" in lines
    assert lines["x3 SwinIR-light (published)"][2:] == ("34.62", "30.54", "29.20", "", "")


def run_all(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "bench.run_all", "--only", result_name("style"), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "IMGTX_BENCHMARKS"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_without_the_benchmark_sets_the_quality_tables_stay_and_nothing_fails(tmp_path):
    before = results()
    done = run_all()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "== the quality tables stay as they are: no folder was given (--benchmarks or "
    )
    (tmp_path / "kodak24").mkdir()
    done = run_all("--benchmarks", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert f"== quality_style stays as it is: {tmp_path} has no held-out" in done.stdout
    done = run_all("--benchmarks", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "nowhere is no folder" in done.stderr
    assert results() == before


def test_a_result_is_measured_again_when_what_it_depends_on_has_changed(tmp_path):
    path = tmp_path / "one.json"
    first = subprocess.run(
        ["git", "rev-list", "--max-parents=0", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    if first.returncode:
        pytest.skip("the history is not here")
    path.write_text(json.dumps({"commit": first.stdout.split()[0]}))
    assert not is_current(path)
    assert is_current(path, [":/no-such-folder"])
    path.write_text(json.dumps({"commit": "abc1234-dirty"}))
    assert not is_current(path, [":/no-such-folder"])


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
