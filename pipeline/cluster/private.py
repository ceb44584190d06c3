"""Every use of Ray's private API, with the reason for it: the page to check when Ray is upgraded.

Written against Ray 2.60, the release that pyproject.toml pins.
"""


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
