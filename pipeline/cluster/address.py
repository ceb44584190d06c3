"""Which Ray cluster a job joins, and a quick check that something answers there."""

import os
import socket
from typing import Protocol
from urllib.parse import urlsplit

from imgtx.errors import ClusterError, UsageError, first_line

# Schemes of a head's dashboard and of Ray Client. A run's driver joins through neither.
HEAD_SCHEMES = ("http://", "https://", "ray://")
VARIABLE = "RAY_ADDRESS"


class Addressed(Protocol):
    """A spec that may name the cluster to join."""

    @property
    def address(self) -> str | None: ...


def address_of(spec: Addressed) -> str | None:
    """Return the address of the cluster to join, or None for a private local Ray.

    The spec's address comes first, then RAY_ADDRESS, which Ray sets for every job.
    """
    address = spec.address or os.environ.get(VARIABLE)
    return None if address == "local" else address


def check_address(spec: Addressed) -> None:
    """Raise, within seconds, where a driver cannot join the cluster that the spec or RAY_ADDRESS names.

    UsageError for http:// and ray:// addresses, and for what is no address; ClusterError where nothing listens at
    HOST:PORT (Ray itself tries for minutes).
    """
    address = address_of(spec) or ""
    if address.startswith(HEAD_SCHEMES):
        # Ray Data does not support Ray Client.
        dashboard = f"http://{urlsplit(address).hostname}:8265" if address.startswith("ray:") else address
        raise UsageError(
            f"{_given(spec)}: a run joins a cluster only from one of its machines, with HOST:6379 or auto; from "
            f"elsewhere use imgtx submit --address {dashboard} -- COMMAND{_without(spec)}"
        )
    host, colon, port = address.rpartition(":")
    if not colon:
        # No address, or one of Ray's own words such as "auto".
        return
    try:
        number = int(port)
        socket.create_connection((host.strip("[]"), number), timeout=5).close()
    except OSError as error:
        raise no_cluster(spec, error) from error
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{_given(spec)}: the port must be a number up to 65535, as in HOST:6379{_without(spec)}"
        ) from error


def no_cluster(spec: Addressed, error: Exception) -> ClusterError:
    """Return the error for an address where no cluster can be joined."""
    return ClusterError(
        f"{_given(spec)}: no Ray cluster answers there ({first_line(error)}); give HOST:6379 or auto on a machine of "
        f"the cluster{_without(spec) or ', or leave it out for a local run'}"
    )


def _given(spec: Addressed) -> str:
    """Return the address with where it comes from."""
    return f"--address {spec.address}" if spec.address else f"{VARIABLE}={os.environ.get(VARIABLE)}"


def _without(spec: Addressed) -> str:
    """Return how to run without an address that comes from the environment; "" where it does not."""
    return "" if spec.address else f"; without a cluster: unset {VARIABLE}, or give --address local"
