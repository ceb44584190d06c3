"""The table [schedule] of a nightly spec: when nights begin, and on what they run."""

import math
import re
from dataclasses import dataclass, field
from datetime import date, datetime
from zoneinfo import ZoneInfo

from imgtx import __version__
from imgtx.errors import UsageError
from jobs.nightly.cron import Cron, parse_cron

WHERE = "[schedule]"

# KubeRay submits by a Kubernetes Job, over HTTP from its operator, or from a container beside the head. Its fourth
# mode, InteractiveMode, waits for a person. The schema takes any word.
SUBMISSION_MODES = ("K8sJobMode", "HTTPMode", "SidecarMode")

# KubeRay takes RayJobs of 47 characters; a night's bears `-20261123`, and those of a RayCronJob a number of up to ten.
LONGEST_NAME = 36
LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
# A Secret, a ServiceAccount: dots are allowed there.
OBJECT = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")


@dataclass(frozen=True)
class Schedule:
    """When nights begin, and on what they run; each target of `imgtx schedule` reads what concerns it.

    `cron` ticks in `time_zone`, whose date is the night's. A tick that was missed is made up for within `late_hours`; a
    night is stopped after `most_hours`, and begun again up to `retries` times where it failed. Credentials are named,
    never held: `secret` is a Kubernetes Secret of environment variables, `environment_file` a file of them for systemd.
    `workers` and `gpu_workers` are the least and the most nodes of each kind; the head trains, so it has sizes of its
    own. Memory is in GiB a node.
    """

    cron: str = "30 1 * * *"
    time_zone: str = "Etc/UTC"
    late_hours: float = 6.0
    most_hours: float = 12.0
    retries: int = 2
    name: str = ""
    namespace: str = "default"
    image: str = f"imgtx:{__version__}"
    gpu_image: str = f"imgtx:{__version__}-cuda"
    service_account: str = "imgtx"
    secret: str = ""
    environment_file: str = ""
    submission_mode: str = "K8sJobMode"
    head_cpus: int = 4
    head_memory: int = 16
    head_gpus: int = 0
    workers: list[int] = field(default_factory=lambda: [1, 4])
    worker_cpus: int = 4
    worker_memory: int = 16
    gpu_workers: list[int] = field(default_factory=lambda: [0, 0])
    gpu_worker_cpus: int = 8
    gpu_worker_memory: int = 32
    gpus: int = 1

    @property
    def ticks(self) -> Cron:
        return parse_cron(self.cron, f"{WHERE} cron")

    @property
    def zone(self) -> ZoneInfo:
        try:
            return ZoneInfo(self.time_zone)
        except (KeyError, ValueError, OSError) as error:  # OSError: the name of a folder
            raise UsageError(
                f"{WHERE} time_zone = {self.time_zone!r} is no time zone here; give one such as Europe/Berlin or "
                "Etc/UTC (a machine without them needs its package tzdata)"
            ) from error

    def date_of(self, moment: datetime) -> date:
        """The night that a tick at `moment` (aware) begins."""
        return moment.astimezone(self.zone).date()


def check_schedule(schedule: Schedule) -> None:
    """UsageError for what no schema would refuse but KubeRay, Kubernetes or the clock does."""
    _ = schedule.ticks, schedule.zone
    if schedule.submission_mode not in SUBMISSION_MODES:
        raise UsageError(
            f"{WHERE} submission_mode = {schedule.submission_mode!r}; legal are {', '.join(SUBMISSION_MODES)}"
        )
    for name in ("late_hours", "most_hours"):
        value = getattr(schedule, name)
        if not (value > 0 and math.isfinite(value)):
            raise UsageError(f"{WHERE} {name} = {value:g}; legal is a number of hours above 0")
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
                raise UsageError(f"{WHERE} {name} = {getattr(schedule, name)}; legal is {least} or more")
    _check_nodes(schedule)
    _check_names(schedule)


def _check_nodes(schedule: Schedule) -> None:
    for name in ("workers", "gpu_workers"):
        nodes = getattr(schedule, name)
        if not (
            len(nodes) == 2 and all(type(number) is int for number in nodes) and 0 <= nodes[0] <= nodes[1]
        ):
            raise UsageError(
                f"{WHERE} {name} = {nodes}; legal is [least, most], two counts of nodes, such as [1, 4]"
            )
    if schedule.workers[0] + schedule.gpu_workers[0] < 1:
        raise UsageError(
            f"{WHERE} workers = {schedule.workers}: a run sizes itself by the nodes that are up when it begins; give a "
            "least of 1 or more"
        )


def _check_names(schedule: Schedule) -> None:
    # KubeRay makes Services of its names: these begin with a letter
    for name, most in (("name", LONGEST_NAME), ("namespace", 63)):
        value = getattr(schedule, name)
        if not LABEL.fullmatch(value) or len(value) > most:
            raise UsageError(
                f"{WHERE} {name} = {value!r}; legal are up to {most} of a-z, 0-9 and -, a letter first and no - last"
            )
    for name in ("service_account", "secret"):
        value = getattr(schedule, name)
        if value and not OBJECT.fullmatch(value):
            raise UsageError(
                f"{WHERE} {name} = {value!r} is no name of a Kubernetes object: a-z, 0-9, - and . in it"
            )
    for name in ("image", "gpu_image"):
        if not re.fullmatch(r"[\w][\w./:@-]*", getattr(schedule, name)):
            raise UsageError(
                f"{WHERE} {name} = {getattr(schedule, name)!r}; give an image such as imgtx:{__version__}"
            )
