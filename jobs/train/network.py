"""Let workers on several machines connect over the network interface that Ray uses.

gloo announces the address that the machine's own name resolves to; where that is a loopback address (Debian's
/etc/hosts) or nothing, workers on two machines never connect. It uses the interface in GLOO_SOCKET_IFNAME instead,
which is set here unless the user has set it.
"""

import os

import psutil
from ray.train.torch import TorchConfig
from ray.util import get_node_ip_address

INTERFACE = "GLOO_SOCKET_IFNAME"


class NodeInterfaceConfig(TorchConfig):
    """A `TorchConfig` whose workers set their node's interface before they form their process group."""

    @property
    def backend_cls(self) -> type:
        class Backend(super().backend_cls):  # type: ignore[misc]  # Ray's backends are classes made at run time
            def on_start(self, worker_group: object, backend_config: TorchConfig) -> None:
                worker_group.execute(set_interface)  # type: ignore[attr-defined]  # of Ray's developer API
                super().on_start(worker_group, backend_config)

        return Backend


def set_interface() -> None:
    """Set INTERFACE of this process to the interface with the node's address, if there is one."""
    name = interface_of(get_node_ip_address())
    if name:
        os.environ.setdefault(INTERFACE, name)


def interface_of(address: str) -> str:
    """Return the interface that has `address` on this machine, "" if none has."""
    found = psutil.net_if_addrs().items()
    return next((name for name, addresses in found if address in [a.address for a in addresses]), "")
