"""Starts real processes that are each other's workers, on loopback."""

import contextlib
import json
import socket

import scripts


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for _ in range(count)
        ]
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def running(count, script, *arguments):
    """Starts `count` workers: yields their processes, the chief first."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(count)]}
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                scripts.running(
                    script,
                    *arguments,
                    TF_CONFIG=json.dumps(
                        {
                            "cluster": cluster,
                            "task": {"type": "worker", "index": index},
                        }
                    ),
                )
            )
            for index in range(count)
        ]


def run(count, script, *arguments):
    """Runs workers to their end; returns their exit codes and outputs."""
    with running(count, script, *arguments) as workers:
        outputs = [worker.wait() for worker in workers]
    return [worker.returncode for worker in workers], outputs
