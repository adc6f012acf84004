"""Starts real processes that are each other's workers, on loopback."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
TIMEOUT = 600  # seconds; a busy machine takes its time


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
    paths = (ROOT, ROOT / "tests", ROOT / "examples")
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, paths)),
                "TF_CONFIG": json.dumps(
                    {
                        "cluster": cluster,
                        "task": {"type": "worker", "index": index},
                    }
                ),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(count)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()


def run(count, script, *arguments):
    """Runs workers to their end; returns their exit codes and outputs."""
    with running(count, script, *arguments) as processes:
        outputs = [p.communicate(timeout=TIMEOUT)[0] for p in processes]
    return [p.returncode for p in processes], outputs
