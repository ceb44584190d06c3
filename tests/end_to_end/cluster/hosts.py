"""Machines for tests: hosts with their own network, processes, temporary files and shared memory, on one kernel.

with network() as net:
    host = net.add("head")                  # 10.213.0.2
    host.start(["python", ...], log)        # a process on it
    host.kill()                             # the machine is gone

A host is a Linux network, process, host-name and mount namespace, joined to the others by a bridge in a
namespace of its own: the network of this machine is left as it is, and nothing is left of a host when
its first process has ended, which ends with this process by a pipe. Hosts share the programs on the
disk, as machines share an image; the files that they write are separate. Needs root, iproute2 and util-linux.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SUBNET = "10.213.0"
# The bridge: where the network's own services listen.
GATEWAY = f"{SUBNET}.1"
# An unused hardware address.
UNUSED_ADDRESS = "02:00:00:00:00:99"
CLONE_NEWNET = 0x40000000

# The first process of a host: children that lose their parent become its own and are reaped; it ends with the test.
_FIRST = """
import os, signal, socket, sys
for name in sys.argv[1:]:
    socket.sethostname(name)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.read(0, 1)
"""
_OWN_FILES = 'mount -t tmpfs tmpfs /dev/shm && mount -t tmpfs tmpfs "$0" && cd "$0" && exec "$@"'


def missing() -> str:
    """Return why this machine cannot have hosts; "" if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts in network namespaces need root on Linux"
    lacking = [program for program in ("ip", "unshare", "nsenter") if not shutil.which(program)]
    return f"not installed: {' '.join(lacking)}" if lacking else ""


@dataclass(frozen=True)
class Host:
    """A running host. `folder` is its own tmpfs, at the same path on every host."""

    name: str
    address: str
    # Its first process, as seen from outside.
    first: int
    # The first process of the bridge's namespace.
    switch: int
    folder: Path
    holder: subprocess.Popen = field(repr=False)

    def start(self, command: list[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen:
        """Start a process on the host; its output goes to `log`. HOME and temporary files are the host's own."""
        places = {"HOME": str(self.folder), "TMPDIR": str(self.folder), "RAY_TMPDIR": str(self.folder)}
        places["XDG_CACHE_HOME"] = str(self.folder / "cache")
        enter = ["nsenter", "-t", str(self.first), "--net", "--uts", "--mount", "--pid", "--"]
        at_home = ["sh", "-c", 'cd "$HOME" && exec "$@"', "sh"]
        with log.open("ab") as file:
            return subprocess.Popen(
                [*enter, *at_home, *command],
                env={**environment, **places},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def processes(self) -> list[psutil.Process]:
        """Return all processes of the host."""
        namespace = os.readlink(f"/proc/{self.first}/ns/pid")
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{process.pid}/ns/pid") == namespace and process.pid != self.first:
                    found.append(process)
        return found

    def kill(self) -> None:
        """Send SIGKILL to all of the host's processes at once; the kernel closes their connections."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.first, signal.SIGKILL)
        self.holder.wait(30)

    def unplug(self) -> None:
        """Cut the network; the host's processes continue, and its peers are not notified."""
        self._inside("link", "set", "eth0", "down")

    def cut(self, address: str) -> None:
        """Packets to `address` vanish without an answer: they go to a hardware address that no host has."""
        self._inside("neigh", "replace", address, "lladdr", UNUSED_ADDRESS, "dev", "eth0", "nud", "permanent")

    def heal(self, address: str) -> None:
        self._inside("neigh", "del", address, "dev", "eth0")

    def _inside(self, *command: str) -> None:
        ip(self.first, *command)


@dataclass(frozen=True)
class Network:
    """The bridge and the hosts on it."""

    switch: int
    folder: Path
    hosts: list[Host]

    def add(self, name: str) -> Host:
        """A new host, joined to the others; its host name is its own, even if hosts were removed before."""
        number = len(self.hosts) + 2
        own = ("--net", "--uts", "--mount", "--pid", "--mount-proc", "--fork")
        holder = _hold(*own, command=["sh", "-c", _OWN_FILES, str(self.folder)], name=f"{name}-{number}")
        first = _child(holder)
        host = Host(name, f"{SUBNET}.{number}", first, self.switch, self.folder, holder)
        self.hosts.append(host)
        port = f"port{number}"
        ip(self.switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(first))
        ip(self.switch, "link", "set", port, "master", "bridge", "up")
        ip(first, "link", "set", "lo", "up")
        ip(first, "address", "add", f"{host.address}/24", "dev", "eth0")
        ip(first, "link", "set", "eth0", "up")
        return host

    def listen(self, port: int) -> socket.socket:
        """Return a socket that hosts reach at GATEWAY, for a server in this process."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as here, open(f"/proc/{self.switch}/ns/net") as there:
            # Only this thread changes its namespace, and a socket stays in the one where it was created.
            if libc.setns(there.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            try:
                return socket.create_server((GATEWAY, port))
            finally:
                assert libc.setns(here.fileno(), CLONE_NEWNET) == 0


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Create a bridge without hosts; at the end every host is killed."""
    holder = _hold("--net")
    # A short path: Ray's sockets are below it, and their paths may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="imgtx-"))
    net = Network(holder.pid, folder, [])
    try:
        _until(lambda: _namespace(holder.pid) != _namespace(os.getpid()), holder)
        ip(holder.pid, "link", "add", "bridge", "type", "bridge")
        ip(holder.pid, "address", "add", f"{GATEWAY}/24", "dev", "bridge")
        ip(holder.pid, "link", "set", "bridge", "up")
        yield net
    finally:
        for host in net.hosts:
            host.kill()
        holder.kill()
        holder.wait()
        folder.rmdir()


def ip(process: int, *command: str) -> None:
    """Run `ip ...` in the network of a process; RuntimeError with its output if it fails."""
    done = subprocess.run(
        ["nsenter", "-t", str(process), "--net", "--", "ip", *command], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(command)}: {done.stderr.strip()}")


def _hold(*namespaces: str, command: Sequence[str] = (), name: str = "") -> subprocess.Popen:
    # Its standard input is a pipe from this process: when this one ends, even by SIGKILL, that one ends too.
    python = [sys.executable, "-S", "-c", _FIRST, *filter(None, [name])]
    # The output of unshare is shown only if it fails: it also complains of a host that is killed.
    return subprocess.Popen(
        ["unshare", *namespaces, "--", *command, *python], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _child(holder: subprocess.Popen) -> int:
    """Return the id of the host's first process, once its files are separate."""
    found: list[int] = []

    def up() -> bool:
        found[:] = [p.pid for p in psutil.Process(holder.pid).children() if "python" in p.name()]
        return bool(found)

    _until(up, holder)
    return found[0]


def _namespace(process: int) -> str:
    return os.readlink(f"/proc/{process}/ns/net")


def _until(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"{process.args} ended: {process.stderr and process.stderr.read()}"
        assert time.monotonic() < deadline, f"nothing within {seconds} s: {process.args}"
        time.sleep(0.02)
