"""Every use of Ray's private API, with the reason for it: the page to check when Ray is upgraded.

Written against Ray 2.60, the release that pyproject.toml pins.
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

# For workers to notice that their raylet has ended.
SURVIVE_SECONDS = 3.0
# Namespace in the table of Ray's head.
PARTS = b"imgtx-parts"
AGENT_PORTS = (
    "metrics_agent_port",
    "metrics_export_port",
    "runtime_env_agent_port",
    "dashboard_agent_listen_port",
)


def draining_nodes() -> set[str]:
    """Return the ids of the nodes that Ray is draining. Ray Data asks in the same way; there is no public call."""
    import ray

    return set(ray._private.state.state.get_draining_nodes())


def local_daemon_died() -> bool:
    """Return whether a daemon of the local Ray that this process started is dead.

    Always False for a joined cluster. Public calls hang or abort the process once a daemon is dead.
    """
    import ray

    node = ray._private.worker._global_node
    return node is not None and bool(node.dead_processes())


def a_worker_is_ready() -> bool:
    """Return whether an actor of Ray Data in this job is alive, which it is once its constructor has returned.

    The public state API needs the dashboard.
    """
    import ray

    if not ray.is_initialized():
        # The context below would start one.
        return False
    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    alive = ray._private.state.state.actor_table(None, job, "ALIVE").values()
    return any(actor["ActorClassName"].startswith("MapWorker") for actor in alive)


def actor_restarts() -> int:
    """Return how often actors of Ray Data in this job were started again. The public state API needs the dashboard."""
    import ray

    if not ray.is_initialized():
        # The context below would start one.
        return 0
    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    actors = ray._private.state.state.actor_table(None, job).values()
    return sum(actor["NumRestarts"] for actor in actors if actor["ActorClassName"].startswith("MapWorker"))


def store_part(part: bytes | None) -> None:
    """Store what this actor has done of an image where its job's driver finds it, instead of the last; None: nothing.

    In the table of Ray's head: a message to an actor would need one that answers, with a process of its own.
    """
    import ray
    from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_put

    context = ray.get_runtime_context()
    key = f"{context.get_job_id()}/{context.get_actor_id()}"
    if part is None:
        _internal_kv_del(key, namespace=PARTS)
    else:
        _internal_kv_put(key, part, namespace=PARTS)


def stored_parts() -> list[bytes]:
    """Return what the actors of this driver's job have stored."""
    import ray

    if not ray.is_initialized():
        return []
    client = ray._private.worker.global_worker.gcs_client
    keys = client.internal_kv_keys(_job_prefix(), PARTS)
    return [*client.internal_kv_multi_get(keys, PARTS).values()] if keys else []


def remove_parts() -> None:
    """Remove what the actors of this driver's job have stored."""
    import ray
    from ray.experimental.internal_kv import _internal_kv_del

    if ray.is_initialized():
        _internal_kv_del(_job_prefix(), del_by_prefix=True, namespace=PARTS)


def _job_prefix() -> bytes:
    import ray

    return f"{ray.get_runtime_context().get_job_id()}/".encode()


@contextmanager
def worker_messages_to(write: Callable[..., None]) -> Iterator[None]:
    """Pass lines of workers and daemons to `write` instead of printing them; `log_to_driver` stops only the first."""
    from ray._private import worker

    printed = worker.print_worker_logs
    worker.print_worker_logs = write
    try:
        yield
    finally:
        worker.print_worker_logs = printed


def log_folder() -> str:
    """Return the folder of the logs of the local Ray that this process started; "" where it started none."""
    import ray

    node = ray._private.worker._global_node
    return node.get_logs_dir_path() if node else ""


@contextmanager
def patient_start(seconds: float) -> Iterator[None]:
    """Let `ray.init` in this block wait up to `seconds` for its own node; on an error, end what it has started.

    Ray itself waits for 30 s, and its raylet 15 s for the ports that its agents take; both are fixed in its code, the
    other limits are in `PATIENCE`. And it leaves the processes of a start that failed running.
    Raises ConnectionError at once where one of Ray's daemons ends meanwhile.
    """
    from ray._private import services
    from ray._private.node import Node

    head, others, nodes = Node.start_head_processes, Node.start_ray_processes, []

    def start_head(node: Node) -> None:
        nodes.append(node)
        _choose_agent_ports(node)
        head(node)

    def start_others(node: Node) -> None:
        others(node)
        deadline = time.monotonic() + seconds
        while not _is_there(services, node) and time.monotonic() < deadline:
            for kind, process in node.dead_processes():
                if kind in ("raylet", "gcs_server"):
                    raise ConnectionError(f"its {kind} ended with exit code {process.returncode}")
            time.sleep(0.2)

    Node.start_head_processes, Node.start_ray_processes = start_head, start_others
    try:
        yield
    except BaseException:
        import ray

        with ExitStack() as ended:
            for node in nodes:
                ended.enter_context(_without_survivors(node))
            ray.shutdown()
            for node in nodes:
                node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        raise
    finally:
        Node.start_head_processes, Node.start_ray_processes = head, others


def shut_down() -> None:
    """Shut Ray down, or disconnect from a cluster; of a local Ray no process is left."""
    import ray

    with _without_survivors(ray._private.worker._global_node):
        ray.shutdown()


@contextmanager
def _without_survivors(node: Any) -> Iterator[None]:
    """Kill what the daemons of `node` have started and what outlives them for long after this block.

    A worker that is just importing notices only afterwards, a minute later on a busy machine, that its raylet is gone.
    """
    import psutil

    daemons = [info.process.pid for infos in node.all_processes.values() for info in infos] if node else []
    started = []
    for daemon in daemons:
        with suppress(psutil.Error):
            started += psutil.Process(daemon).children(recursive=True)
    try:
        yield
    finally:
        _, survivors = psutil.wait_procs(started, timeout=SURVIVE_SECONDS)
        for process in survivors:
            with suppress(psutil.Error):
                process.kill()


def _choose_agent_ports(node: Any) -> None:
    """Choose the ports of Ray's agents, which the raylet then need not wait for."""
    from ray._raylet import persist_port  # type: ignore[attr-defined]  # it is compiled

    with ExitStack() as held:
        for name in AGENT_PORTS:
            if not getattr(node._ray_params, name):
                # All are held until the last is chosen, so that no two are the same.
                taken = held.enter_context(socket.create_server(("127.0.0.1", 0)))
                setattr(node._ray_params, name, taken.getsockname()[1])
    # Ray does not pass this one on to its raylet, which reads it from the agent's file.
    persist_port(
        node._session_dir, node._node_id, AGENT_PORTS[-1], node._ray_params.dashboard_agent_listen_port
    )


def _is_there(services: Any, node: Any) -> bool:
    try:
        services.get_node(node.gcs_address, node._node_id)
    except RuntimeError:
        return False
    return True


@contextmanager
def unheard_ray() -> Iterator[None]:
    """Keep off standard output what Ray says there of processes that ended: it is the command's."""
    from ray._private import worker

    # Ray's debugger switches it off in the same way.
    before = getattr(worker, "_worker_logs_enabled", True)
    vars(worker)["_worker_logs_enabled"] = False
    try:
        yield
    finally:
        vars(worker)["_worker_logs_enabled"] = before
