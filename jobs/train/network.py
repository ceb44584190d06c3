"""Workers on several machines find each other by the network that Ray reaches the machines by.

gloo offers the others the address that a machine's own name stands for; where that is a loopback one (Debian's
/etc/hosts) or none at all, workers of two machines wait for each other in vain. It takes the interface of
GLOO_SOCKET_IFNAME instead, which is set here unless somebody has.
"""

import os

import psutil
from ray.train.torch import TorchConfig
from ray.util import get_node_ip_address

INTERFACE = "GLOO_SOCKET_IFNAME"


class NodeInterfaceConfig(TorchConfig):
    """`TorchConfig` whose workers take their node's interface before they form their process group."""

    @property
    def backend_cls(self) -> type:
        class Backend(super().backend_cls):  # type: ignore[misc]  # Ray's backends are classes made at run time
            def on_start(self, worker_group: object, backend_config: TorchConfig) -> None:
                worker_group.execute(take_interface)  # type: ignore[attr-defined]  # of Ray's developer API
                super().on_start(worker_group, backend_config)

        return Backend


def take_interface() -> None:
    """Set INTERFACE for this process to what has the node's address; left alone where nothing has."""
    name = interface_of(get_node_ip_address())
    if name:
        os.environ.setdefault(INTERFACE, name)


def interface_of(address: str) -> str:
    """The interface with an address of this machine; "" where there is none."""
    found = psutil.net_if_addrs().items()
    return next((name for name, addresses in found if address in [a.address for a in addresses]), "")
