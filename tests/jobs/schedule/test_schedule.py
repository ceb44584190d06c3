"""A nightly spec as manifests: each is what its scheduler takes, names one run a date, and holds no credentials."""

import re
import shutil
import subprocess
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from imgtx.errors import UsageError
from imgtx.settings import parse_settings, read_toml
from jobs.nightly.spec import NightlySpec, load_nightly_spec
from jobs.schedule.kubernetes import TARGETS, manifests, ray_job, to_yaml
from jobs.schedule.systemd import units
from tests.support.commands import complaint, imgtx
from tests.support.manifests import check_time_to_go, commands, problems, read

SHIPPED = Path(__file__).parents[3] / "jobs" / "specs" / "nightly.toml"
NIGHT = date(2026, 11, 23)

# Settings that change the manifests, each on top of the shipped spec.
VARIANTS = {
    "shipped": (),
    "gpu": ("gpu_workers=[1, 8]", "gpus=2", "head_gpus=1", "secret=s3-keys"),
    "gpu alone": ("workers=[0, 0]", "gpu_workers=[1, 1]"),
    "sidecar": ("submission_mode=SidecarMode",),
    "http": ("submission_mode=HTTPMode", "retries=0", "max_hours=0.5"),
    "longest": (
        f"name={'n' * 36}",
        "namespace=ml",
        "time_zone=America/St_Johns",
        "at='23:00'",
        "days=['mon', 'fri']",
    ),
}


def spec_with(*settings: str) -> NightlySpec:
    return load_nightly_spec(SHIPPED, parse_settings([f"schedule.{setting}" for setting in settings]))


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = (item for item in objects if item["kind"] == kind)
    return found


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_a_cluster_accepts_the_manifest(target: str, settings: tuple[str, ...]):
    text = to_yaml(manifests(spec_with(*settings), target, NIGHT))
    assert "&id" not in text
    objects = read(text)
    assert [problem for item in objects for problem in problems(item)] == []
    assert any(words[1] in ("nightly", "schedule") for item in objects for words in commands(item))


def test_the_checks_find_planted_errors():
    job = ray_job(spec_with("gpu_workers=[1, 2]"), NIGHT)
    for change, words in (
        ({"entrypoint": "imgtx nightly --dat 2026-11-23 x"}, "No such option"),
        ({"entrypoint": "imgtx nigtly x"}, "No such command"),
        ({"submissionMode": "K8sjobMode"}, "submissionMode"),
        ({"backofLimit": 1}, "'backofLimit' was unexpected"),
        ({"backoffLimit": "2"}, "is not of type"),
        ({"clusterSelector": {"a": "b"}}, "one of rayClusterSpec and clusterSelector"),
    ):
        assert words in "\n".join(problems(job | {"spec": job["spec"] | change})), change
    assert "longer than 47" in "\n".join(problems(job | {"metadata": {"name": "n" * 48}}))
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]["maxReplicas"] = 0
    assert "does not hold" in "\n".join(problems(job))
    cron_job = of_kind(manifests(spec_with(), "cronjob", NIGHT), "CronJob")
    cron_job["spec"] |= {"schedule": "61 * * * *", "concurencyPolicy": "Forbid"}
    found = "\n".join(problems(cron_job))
    assert "the schedule '61 * * * *' is not a time of day" in found
    assert "concurencyPolicy" in found


def test_the_manifest_contains_the_spec_as_it_was_read(tmp_path: Path):
    path = tmp_path / "nightly.toml"
    awkward = 'note \\"quoted\\" \\\\ Ärger\\u007f\\nand a line'
    shipped = SHIPPED.read_text().replace('"of the archive"', f'"{awkward}"')
    path.write_text(shipped + "late_hours = 1.5 # my key is AKIAPLANTED\n")
    spec = load_nightly_spec(path)
    text = to_yaml(manifests(spec, "cronjob", NIGHT))
    # Comments are dropped.
    assert "AKIAPLANTED" not in text
    carried = tmp_path / "carried.toml"
    carried.write_text(of_kind(read(text), "ConfigMap")["data"]["nightly.toml"])
    assert load_nightly_spec(carried) == spec
    assert read_toml(carried)["train"]["peak_lr"] == 1e-4


def test_a_second_tick_of_a_date_creates_the_same_ray_job():
    spec = spec_with("time_zone=Europe/Lisbon")
    first, second = (
        ray_job(spec, spec.when.date_of(datetime(2026, 11, 23, hour, 30, tzinfo=UTC))) for hour in (1, 23)
    )
    assert first == second
    assert first["metadata"]["name"] == "imgtx-sr-x2-20261123"
    assert " --date 2026-11-23 " in first["spec"]["entrypoint"]


def test_a_terminating_worker_has_time_to_drain():
    job = ray_job(spec_with(), NIGHT)
    check_time_to_go(job["spec"]["rayClusterSpec"])
    (head,) = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert "env" not in head


def test_runs_are_dated_by_their_time_zone():
    """At half past midnight in Lisbon two consecutive runs in spring begin on one date of UTC."""
    when = spec_with("time_zone=Europe/Lisbon", "at=00:30").when
    before, after = datetime(2026, 3, 29, 0, 30, tzinfo=UTC), datetime(2026, 3, 29, 23, 30, tzinfo=UTC)
    assert (when.date_of(before), when.date_of(after)) == (date(2026, 3, 29), date(2026, 3, 30))


def test_missed_and_overlapping_ticks_are_configured_in_the_cron_job():
    cron_job = of_kind(manifests(spec_with("late_hours=2.5"), "cronjob", NIGHT), "CronJob")["spec"]
    assert (cron_job["concurrencyPolicy"], cron_job["startingDeadlineSeconds"]) == ("Forbid", 9000)
    assert cron_job["timeZone"] == "Etc/UTC"


def test_the_cron_job_may_create_ray_jobs_and_nothing_else():
    objects = manifests(spec_with("secret=s3-keys"), "cronjob", NIGHT)
    assert of_kind(objects, "Role")["rules"] == [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}
    ]
    # Its pod needs no storage.
    assert "s3-keys" not in to_yaml([of_kind(objects, "CronJob")])
    assert "secretRef" in to_yaml([ray_job(spec_with("secret=s3-keys"), NIGHT)])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["at=25:30"], "at = '25:30': expected a time of day"),
        (["days=['monday']"], "days = ['monday']: expected some of mon, tue"),
        (["time_zone=Mars/Olympus"], "time_zone = 'Mars/Olympus': unknown time zone"),
        (["time_zone=Europe"], "unknown time zone"),
        (["time_zone=../etc/passwd"], "unknown time zone"),
        (["submission_mode=InteractiveMode"], "expected one of K8sJobMode, HTTPMode, SidecarMode"),
        (["late_hours=0"], "late_hours = 0: expected a number of hours greater than 0"),
        (["max_hours=nan"], "max_hours = nan"),
        (["retries=-1"], "retries = -1: expected 0 or more"),
        (["gpus=0"], "gpus = 0: expected 1 or more"),
        (["workers=[4, 1]"], "workers = [4, 1]: expected [minimum, maximum]"),
        (["workers=[1]"], "workers = [1]"),
        (["workers=[1, true]"], "workers = [1, True]"),
        (["workers=[0, 4]"], "give a minimum of 1 or more"),
        ([f"name={'n' * 37}"], "expected up to 36"),
        (["name=Nightly"], "name = 'Nightly'"),
        (["name=2nights"], "name = '2nights'"),
        (["namespace=a_b"], "namespace = 'a_b'"),
        (["secret=Keys!"], "secret = 'Keys!' is not the name"),
        (["image='a b'"], "image = 'a b'"),
    ],
)
def test_errors_that_no_schema_finds_are_named(settings: list[str], words: str):
    with pytest.raises(UsageError) as caught:
        manifests(spec_with(*settings), "cronjob", NIGHT)
    assert words in str(caught.value)
    assert str(caught.value).startswith("[schedule] ")
    assert "\n" not in str(caught.value)


def test_a_local_folder_is_refused_for_pods():
    for setting, name in (
        ("valid=photos/", "valid"),
        ("datasets=['s3://bucket/set5', 'set14']", "datasets[1]"),
    ):
        spec = load_nightly_spec(SHIPPED, parse_settings([setting]))
        with pytest.raises(UsageError, match=rf"{re.escape(name)} = .*pods do not see"):
            manifests(spec, "cronjob", NIGHT)
        assert units(spec, SHIPPED, "/usr/bin/imgtx")


def test_systemd_units_contain_the_schedule(tmp_path: Path):
    spec = spec_with("days=['mon']", "retries=3", "environment_file=/etc/imgtx.env", "max_hours=30")
    found = units(spec, tmp_path / '50% "quoted" $HOME.toml', "/opt/imgtx/bin/imgtx")
    service, timer = found["imgtx-sr-x2.service"], found["imgtx-sr-x2.timer"]
    assert "OnCalendar=Mon *-*-* 01:30:00 Etc/UTC\nPersistent=true\n" in timer
    assert f'ExecStart="/opt/imgtx/bin/imgtx" nightly "{tmp_path}/50%% \\"quoted\\" $$HOME.toml"\n' in service
    assert "Type=oneshot\n" in service
    assert "EnvironmentFile=/etc/imgtx.env\n" in service
    assert "StartLimitIntervalSec=72000\nStartLimitBurst=4\n" in service
    assert "TimeoutStartSec=108000\n" in service
    assert "Restart=on-failure\nRestartSec=60\nRestartPreventExitStatus=2 130\n" in service
    with pytest.raises(UsageError, match="control character"):
        units(spec, tmp_path / "a\nExecStart=b", "/usr/bin/imgtx")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_accepts_the_units(tmp_path: Path):
    program = shutil.which("true")
    assert program
    for name, content in units(spec_with(), tmp_path / "a b.toml", program).items():
        (tmp_path / name).write_text(content)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(map(str, tmp_path.glob("imgtx-*")))],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if "imgtx-sr-x2" in line]) == (0, [])


class TestCommand:
    def test_the_default_is_a_cron_job(self):
        result = imgtx("schedule", str(SHIPPED))
        assert result.exit_code == 0, result.output
        assert [item["kind"] for item in read(result.stdout)] == [
            *("ServiceAccount", "Role", "RoleBinding", "ConfigMap", "CronJob")
        ]

    def test_one_run_can_be_scheduled_by_date(self):
        result = imgtx("schedule", str(SHIPPED), "--target", "rayjob", "--date", "2026-11-23")
        assert of_kind(read(result.stdout), "RayJob") == ray_job(spec_with(), NIGHT)

    def test_files_are_written_to_a_folder(self, tmp_path: Path):
        result = imgtx("schedule", str(SHIPPED), "--target", "systemd", "--out", str(tmp_path / "units"))
        assert result.exit_code == 0, result.output
        assert result.stdout.split() == [
            str(tmp_path / "units" / f"imgtx-sr-x2.{kind}") for kind in ("service", "timer")
        ]
        assert "\n[Service]\n" in (tmp_path / "units" / "imgtx-sr-x2.service").read_text()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--target", "cron"], "--target cron: expected one of cronjob, rayjob, raycronjob, systemd"),
            (["--date", "2026-11-23"], "--date and --job-name are for --target rayjob"),
            (["--target", "rayjob", "--date", "tomorrow"], "--date tomorrow is not a date"),
            (["--out", f"{SHIPPED}/units"], "cannot write"),
        ],
    )
    def test_invalid_arguments_are_refused(self, arguments: list[str], words: str):
        assert words in complaint("schedule", str(SHIPPED), *arguments)
