"""Environment variables and code that the driver hands to Ray and its workers."""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.storage.store import open_store

# By default glibc returns freed memory to the system at every large free and takes it back page by page. Keeping it
# makes a forward pass 1.3 to 1.6 times faster on a CPU.
# OMP_NUM_THREADS: an actor has one core, so it gets one thread.
# VIPS_CONCURRENCY: libvips holds rows for each of its threads, by default one a core.
WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 31),
    "MALLOC_TOP_PAD_": str(64 << 20),
    "OMP_NUM_THREADS": "1",
    "VIPS_CONCURRENCY": "1",
}
# Where storage is: these go to a cluster when they are set here. Credentials never do, because the environment of a
# job or worker is shown on the dashboard and in the logs of every node.
FORWARDED = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "IMGTX_STORE",
)
ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")

# The settings below are read by Ray when it is imported or started.
# Without this one its C++ side warns on stderr of restarts that we plan for.
QUIET = {"RAY_BACKEND_LOG_LEVEL": "fatal"}
# A machine that vanishes closes no connection. A call to it waits as long as these settings say, even after the
# cluster has noticed the loss: seven minutes by Ray's defaults. The time stays above a minute because gRPC servers
# with default settings drop clients that ping more often.
JOINED_SETTINGS = QUIET | {
    "RAY_grpc_client_keepalive_time_ms": "65000",
    "RAY_grpc_client_keepalive_timeout_ms": "20000",
}
# Ray gives its own processes 30, 15 and 60 s to come up: too few on a machine with other work.
PATIENCE = {
    "RAY_gcs_server_port_wait_time_s": "120",
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_worker_register_timeout_seconds": "600",
}
LOCAL_SETTINGS = QUIET | {
    **PATIENCE,
    # Ray's processes run any code that reaches their ports. The first setting, which is named for the systems where it
    # is the default, keeps them on loopback everywhere; the token keeps out other users of this machine.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    # Ray ends workers beyond one a core that are idle for a second. Actors hold the cores here, so every few tasks
    # would start a new worker, which imports for four seconds of a core.
    "RAY_idle_worker_killing_time_threshold_ms": str(3600 * 1000),
    # At Ray's default of 15 any other program on the machine starves the run.
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray kills workers where programs of this machine take 95 % of its memory, and starts them again without end. The
    # kernel kills them where there is none left, which both engines count.
    "RAY_memory_monitor_refresh_ms": "0",
    # No cloud preempts this machine: one process less.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}

# The folder of our own packages, which travel to a joined cluster.
CODE, PACKAGES = Path(__file__).resolve().parents[2], ("imgtx", "pipeline", "jobs")


def local_settings() -> dict[str, str]:
    """Return the environment of a private local Ray.

    It has a token of its own; without one Ray writes a token into the home folder.
    """
    return LOCAL_SETTINGS | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}


def joined_environment() -> dict[str, Any]:
    """Return the `runtime_env` for a joined cluster: our variables, and our code unless a job brought it.

    Variables that the job's own environment sets are left out: Ray refuses to have one set twice.
    """
    job = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR")
    known = (json.loads(job).get("runtime_env") or {}).get("env_vars", {}) if job else {}
    wanted = WORKER_ENVIRONMENT | forwarded(os.environ)
    variables = {name: value for name, value in wanted.items() if name not in known}
    code = {} if job else {"py_modules": [str(CODE / package) for package in PACKAGES]}
    return {"env_vars": variables} | code


def forwarded(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `environment` that say where storage is.

    Raises UsageError for an endpoint URL that holds credentials.
    """
    found = {name: environment[name] for name in FORWARDED if environment.get(name)}
    for name in ENDPOINTS:
        open_store("s3://any", endpoint_url=found.get(name))
    return found
