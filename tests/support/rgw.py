"""Ceph's S3 server for nightly tests: a real one, where moto is a fake.

python -m tests.support.rgw     # prints what to export; runs until Ctrl-C
with serving() as server:       # server.url; credentials: ACCESS, SECRET

A cluster of one monitor, one OSD in memory and one gateway, on loopback, as root. It ends with the process that
started it and leaves nothing behind. Needs, on Debian:
apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-common
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ACCESS, SECRET = "testing", "testing"
PROGRAMS = (
    "ceph",
    "ceph-authtool",
    "ceph-mon",
    "ceph-osd",
    "monmaptool",
    "radosgw",
    "radosgw-admin",
    "setpriv",
)
# This version answers 411 to checksums after the body, which pyarrow and boto3 send since 2025.
CHECKSUMS = {
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
}
WITHIN = 120.0

# One monitor needs none of Ceph's waits; a pool of one OSD has one copy and few placement groups.
_SETTINGS = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon}]
mon initial members = a
ms bind ipv4 = true
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 4294967296
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail crit = 1
paxos propose interval = 0.05
paxos min wait = 0.01
keyring = {folder}/admin.keyring
run dir = {folder}
log file = {folder}/$name.log
admin socket = {folder}/$name.sock
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
rgw enable usage log = false
rgw thread pool size = 32
"""


@dataclass(frozen=True)
class Rgw:
    """A running gateway; `url` is its address."""

    url: str


def missing() -> str:
    """Return why this machine cannot run it; "" if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "Ceph's daemons need root on Linux"
    lacking = [program for program in PROGRAMS if not shutil.which(program)]
    return f"not installed: {' '.join(lacking)}" if lacking else ""


@contextlib.contextmanager
def serving() -> Iterator[Rgw]:
    folder, daemons = Path(tempfile.mkdtemp(prefix="imgtx-rgw-")), list[subprocess.Popen]()
    try:
        yield _start(folder, daemons)
    except AssertionError:
        for log in folder.glob("*.log"):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
        raise
    finally:
        for daemon in reversed(daemons):
            daemon.kill()
            daemon.wait()
        shutil.rmtree(folder)


def _start(folder: Path, daemons: list[subprocess.Popen]) -> Rgw:
    conf = folder / "ceph.conf"
    (mon, gateway), fsid = _free_ports(2), str(uuid.uuid4())
    conf.write_text(_SETTINGS.format(fsid=fsid, mon=mon, folder=folder))
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()

    def run(program: str, *arguments: str, typed: str | None = None) -> str:
        done = subprocess.run(
            [program, "--conf", str(conf), *arguments],
            capture_output=True,
            text=True,
            input=typed,
            timeout=WITHIN,
        )
        assert done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def begin(program: str, *arguments: str) -> subprocess.Popen:
        # it ends with this process, even by SIGKILL
        command = ["setpriv", "--pdeathsig", "KILL", program, "--conf", str(conf), "--foreground", *arguments]
        with (folder / f"{program}.out.log").open("wb") as log:
            daemons.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        return daemons[-1]

    everything = [word for what in ("mon", "osd") for word in ("--cap", what, "allow *")]
    keyring, monmap = folder / "admin.keyring", folder / "monmap"
    _tool("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
    _tool("ceph-authtool", keyring, "--gen-key", "-n", "client.admin", *everything)
    _tool("monmaptool", "--create", "--addv", "a", f"[v2:127.0.0.1:{mon}]", "--fsid", fsid, monmap)
    run("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(monmap), "--keyring", str(keyring))
    begin("ceph-mon", "-i", "a")

    osd, secret = str(uuid.uuid4()), _tool("ceph-authtool", "--gen-print-key").strip()
    run("ceph", "osd", "new", osd, "-i", "-", typed=f'{{"cephx_secret": "{secret}"}}')
    _tool("ceph-authtool", "--create-keyring", folder / "osd/keyring", "-n", "osd.0", "--add-key", secret)
    run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd, "--keyring", str(folder / "osd/keyring"))
    begin("ceph-osd", "-i", "0", "--keyring", str(folder / "osd/keyring"))

    (folder / "rgw/keyring").write_text(
        run("ceph", "auth", "get-or-create", "client.rgw", "mon", "allow rw", "osd", "allow rwx")
    )
    _until(lambda: " 1 up" in run("ceph", "osd", "stat"), daemons)
    # tcp_nodelay: without it an answer waits 40 ms for the client's acknowledgement
    at = f"beast endpoint=127.0.0.1:{gateway} tcp_nodelay=1"
    begin("radosgw", "-n", "client.rgw", "--keyring", str(folder / "rgw/keyring"), "--rgw-frontends", at)
    url = f"http://127.0.0.1:{gateway}"
    _until(lambda: _answers(url), daemons)
    keys = ("--access-key", ACCESS, "--secret", SECRET)
    run("radosgw-admin", "user", "create", "--uid", "testing", "--display-name", "testing", *keys)
    return Rgw(url)


def _tool(program: str, *arguments: str | Path) -> str:
    """Run one of Ceph's tools that need no cluster."""
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=True, timeout=WITHIN
    ).stdout


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _until(condition: Callable[[], bool], daemons: list[subprocess.Popen]) -> None:
    deadline = time.monotonic() + WITHIN
    while not condition():
        for daemon in daemons:
            assert daemon.poll() is None, f"{daemon.args} ended"
        assert time.monotonic() < deadline, f"nothing within {WITHIN} s"
        time.sleep(0.1)


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    with serving() as server, contextlib.suppress(KeyboardInterrupt):
        given = {"AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
        print(
            *(f"export {name}={value}" for name, value in (given | CHECKSUMS).items()), sep="\n", flush=True
        )
        while True:
            time.sleep(3600)
