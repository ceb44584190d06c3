"""The [schedule] table of a nightly spec: when nightly runs start, and on which machines."""

import math
import re
from dataclasses import dataclass, field
from datetime import date, datetime
from zoneinfo import ZoneInfo

from imgtx import __version__
from imgtx.errors import UsageError

WHERE = "[schedule]"

# The Secret with the keys of S3 that infra/kuberay/README.md creates. Pods start without it, because where pods
# have a role of their own it does not exist; a secret that the user names must exist.
DEFAULT_SECRET = "imgtx-s3"

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

# KubeRay submits with a Kubernetes Job, over HTTP from its operator, or from a container beside the head. Its fourth
# mode, InteractiveMode, waits for a user. KubeRay's schema accepts any text.
SUBMISSION_MODES = ("K8sJobMode", "HTTPMode", "SidecarMode")

# KubeRay accepts RayJob names of 47 characters. imgtx appends `-20261123`; a RayCronJob appends a number of up to ten
# digits.
MAX_NAME_LENGTH = 36
LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
# The names of a Secret and a ServiceAccount may contain dots.
OBJECT = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")


@dataclass(frozen=True)
class Schedule:
    """When nightly runs start and on which machines; each target of `imgtx schedule` reads the fields it needs.

    `make docs` reads the comments.
    """

    # Time of day at which a run starts, HH:MM.
    at: str = "01:30"
    # Days of the week, such as `["mon", "thu"]`; empty means every day.
    days: list[str] = field(default_factory=list)
    # Time zone of `at`; the date there is the date of the run.
    time_zone: str = "Etc/UTC"
    # Hours within which a missed start is made up for.
    late_hours: float = 6.0
    # Hours after which a run is stopped.
    max_hours: float = 12.0
    # How often a failed run is restarted.
    retries: int = 2
    # Name of all generated objects, up to 36 characters; by default `imgtx-<model>`.
    name: str = ""
    # Kubernetes namespace of all generated objects.
    namespace: str = "imgtx"
    # Container image of nodes without GPUs.
    image: str = f"imgtx:{__version__}"
    # Container image of nodes with GPUs.
    gpu_image: str = f"imgtx:{__version__}-cuda"
    # Kubernetes service account of the pods.
    service_account: str = "imgtx"
    # Kubernetes Secret whose entries become environment variables of the pods; credentials are never in a manifest.
    # Pods start without the default one, for example where they have a role; any other must exist.
    secret: str = DEFAULT_SECRET
    # The same for systemd: a file of `NAME=value` lines that only you can read.
    environment_file: str = ""
    # KubeRay's submission mode: `K8sJobMode`, `HTTPMode` or `SidecarMode`.
    submission_mode: str = "K8sJobMode"
    # CPUs of the head, where training runs.
    head_cpus: int = 4
    # Memory of the head in GiB.
    head_memory: int = 16
    # GPUs of the head.
    head_gpus: int = 0
    # Minimum and maximum number of nodes without GPUs.
    workers: list[int] = field(default_factory=lambda: [1, 4])
    # CPUs of each.
    worker_cpus: int = 4
    # Memory of each in GiB.
    worker_memory: int = 16
    # Minimum and maximum number of nodes with GPUs.
    gpu_workers: list[int] = field(default_factory=lambda: [0, 0])
    # CPUs of each.
    gpu_worker_cpus: int = 8
    # Memory of each in GiB.
    gpu_worker_memory: int = 32
    # GPUs of each.
    gpus: int = 1

    @property
    def cron(self) -> str:
        """The start times as Kubernetes reads them, such as `30 1 * * mon,fri`, in `time_zone`."""
        hour, minute = map(int, self.at.split(":"))
        return f"{minute} {hour} * * {','.join(self.days) or '*'}"

    @property
    def calendar(self) -> str:
        """The same for systemd's `OnCalendar=`, such as `Mon,Fri *-*-* 01:30:00 Etc/UTC`."""
        days = ",".join(day.capitalize() for day in self.days)
        return f"{days} *-*-* {self.at}:00 {self.time_zone}".strip()

    @property
    def zone(self) -> ZoneInfo:
        try:
            return ZoneInfo(self.time_zone)
        # OSError: the name of a folder of zones.
        except (KeyError, ValueError, OSError) as error:
            raise UsageError(
                f"{WHERE} time_zone = {self.time_zone!r}: unknown time zone; give one such as Europe/Berlin or Etc/UTC "
                "(if this machine knows none, install tzdata)"
            ) from error

    def date_of(self, moment: datetime) -> date:
        """Return the date of the nightly run that starts at `moment`, a datetime with a time zone."""
        return moment.astimezone(self.zone).date()


def check_schedule(schedule: Schedule) -> None:
    """Raise UsageError for values that pass every schema but that Kubernetes, KubeRay or the clock rejects."""
    _check_times(schedule)
    if schedule.submission_mode not in SUBMISSION_MODES:
        raise UsageError(
            f"{WHERE} submission_mode = {schedule.submission_mode!r}: expected one of {', '.join(SUBMISSION_MODES)}"
        )
    for name in ("late_hours", "max_hours"):
        value = getattr(schedule, name)
        if not (value > 0 and math.isfinite(value)):
            raise UsageError(f"{WHERE} {name} = {value:g}: expected a number of hours greater than 0")
    sizes = (
        "head_cpus",
        "head_memory",
        "worker_cpus",
        "worker_memory",
        "gpu_worker_cpus",
        "gpu_worker_memory",
    )
    for least, names in ((0, ("retries", "head_gpus")), (1, (*sizes, "gpus"))):
        for name in names:
            if getattr(schedule, name) < least:
                raise UsageError(f"{WHERE} {name} = {getattr(schedule, name)}: expected {least} or more")
    _check_nodes(schedule)
    _check_names(schedule)


def _check_times(schedule: Schedule) -> None:
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", schedule.at, re.ASCII):
        raise UsageError(f'{WHERE} at = {schedule.at!r}: expected a time of day from "00:00" to "23:59"')
    days = schedule.days
    if any(day not in DAYS for day in days) or len({*days}) < len(days):
        raise UsageError(
            f"{WHERE} days = {days}: expected some of {', '.join(DAYS)}, each once, or [] for every day"
        )
    _ = schedule.zone


def _check_nodes(schedule: Schedule) -> None:
    for name in ("workers", "gpu_workers"):
        nodes = getattr(schedule, name)
        if not (
            len(nodes) == 2 and all(type(number) is int for number in nodes) and 0 <= nodes[0] <= nodes[1]
        ):
            raise UsageError(
                f"{WHERE} {name} = {nodes}: expected [minimum, maximum], two numbers of nodes, such as [1, 4]"
            )
    if schedule.workers[0] + schedule.gpu_workers[0] < 1:
        raise UsageError(
            f"{WHERE} workers = {schedule.workers}: a run sizes itself by the nodes that are up when it starts; give a "
            "minimum of 1 or more"
        )


def _check_names(schedule: Schedule) -> None:
    # KubeRay derives Service names from these, and those must begin with a letter.
    for name, most in (("name", MAX_NAME_LENGTH), ("namespace", 63)):
        value = getattr(schedule, name)
        if not LABEL.fullmatch(value) or len(value) > most:
            raise UsageError(
                f"{WHERE} {name} = {value!r}: expected up to {most} of a-z, 0-9 and -, beginning "
                "with a letter and not ending with -"
            )
    for name in ("service_account", "secret"):
        value = getattr(schedule, name)
        if value and not OBJECT.fullmatch(value):
            raise UsageError(
                f"{WHERE} {name} = {value!r} is not the name of a Kubernetes object: use a-z, 0-9, - and ."
            )
    for name in ("image", "gpu_image"):
        if not re.fullmatch(r"[\w][\w./:@-]*", getattr(schedule, name)):
            raise UsageError(
                f"{WHERE} {name} = {getattr(schedule, name)!r}: give an image such as imgtx:{__version__}"
            )
