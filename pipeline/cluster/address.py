"""Which Ray cluster a job joins, and a quick check that something answers there."""

import os
import socket
from typing import Protocol
from urllib.parse import urlsplit

from imgtx.errors import UsageError, first_line

# Schemes of a head's dashboard and of Ray Client. A run's driver joins through neither.
HEAD_SCHEMES = ("http://", "https://", "ray://")


class Addressed(Protocol):
    """A spec that may name the cluster to join."""

    @property
    def address(self) -> str | None: ...


def address_of(spec: Addressed) -> str | None:
    """Return the address of the cluster to join, or None for a private local Ray.

    The spec's address comes first, then RAY_ADDRESS, which Ray sets for every job.
    """
    address = spec.address or os.environ.get("RAY_ADDRESS")
    return None if address == "local" else address


def check_address(address: str | None) -> None:
    """Raise UsageError, within seconds, where a driver cannot join a cluster at `address`.

    That is where nothing listens at HOST:PORT (Ray itself tries for minutes), and for http:// and ray:// addresses.
    """
    address = address or ""
    if address.startswith(HEAD_SCHEMES):
        # Ray Data does not support Ray Client.
        dashboard = f"http://{urlsplit(address).hostname}:8265" if address.startswith("ray:") else address
        raise UsageError(
            f"--address {address}: a run joins a cluster only from one of its machines, with HOST:6379 or auto; from "
            f"elsewhere use imgtx submit --address {dashboard} -- COMMAND"
        )
    host, colon, port = address.rpartition(":")
    if not colon:
        # No address, or one of Ray's own words such as "auto".
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError, OverflowError) as error:
        raise no_cluster(address, error) from error


def no_cluster(address: str, error: Exception) -> UsageError:
    """Return the error for an address where no cluster can be joined."""
    return UsageError(
        f"--address {address}: no Ray cluster answers there ({first_line(error)}); "
        f"give HOST:6379 or auto on a machine of the cluster, or leave it out for a local run"
    )
