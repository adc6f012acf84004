"""Scripts in processes of their own that need not import TensorFlow again.

Importing takes most of the seconds of a short run. One process imports, and
each script runs in a fork of it, with arguments, an environment, an output
and an end of its own.
"""

import contextlib
import gc
import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
TIMEOUT = 900  # seconds; a busy machine takes its time
# On a CPU, several at once do not compete for memory, and end with the same
# bits. A script that is to have a GPU is given its number.
CPU = {"CUDA_VISIBLE_DEVICES": "-1"}
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "matplotlib.pyplot",
        "sklearn.datasets",
        "sklearn.model_selection",
        "tensorflow_datasets",
        "atent_keras.plots",
    ]
)


def run_afresh(script, *arguments, **environment):
    """Runs a script as its users do; returns its exit code and output."""
    path = f"{ROOT}{os.pathsep}{ROOT / 'examples'}"
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env={**os.environ, **CPU, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )
    return done.returncode, done.stdout


def run(script, *arguments, **environment):
    """Does the same in a fork."""
    with running(script, *arguments, **environment) as process:
        output = process.wait()
    return process.returncode, output


@contextlib.contextmanager
def running(script, *arguments, **environment):
    """Starts a script in a fork, and kills it if it does not end before."""
    with tempfile.NamedTemporaryFile("r", errors="replace") as output:
        process = FORKS.Process(
            target=_main,
            args=(
                [str(script), *map(str, arguments)],
                {**os.environ, **CPU, **environment},
                output.name,
            ),
        )
        process.start()
        try:
            yield Script(process, output)
        finally:
            process.kill()
            process.join()


class Script:
    """A script that runs."""

    def __init__(self, process, output):
        self.process, self.output = process, output
        self.kill = process.kill

    @property
    def returncode(self):
        """None until it has ended."""
        return self.process.exitcode

    def wait(self):
        """Waits for the end; returns all that the script has written."""
        self.process.join(TIMEOUT)
        if self.returncode is None:
            raise TimeoutError(self.output.read())
        return self.output.read()


class Popen:
    """Stands in for `subprocess.Popen` of a script, which runs in a fork."""

    def __init__(self, arguments, stdout, stderr):
        _, *arguments = arguments
        self.process = FORKS.Process(
            target=_main, args=(arguments, dict(os.environ), stdout.name)
        )
        self.process.start()
        self.terminate, self.wait = self.process.terminate, self.process.join

    @property
    def returncode(self):
        return self.process.exitcode

    def poll(self):
        return self.process.exitcode


def _main(arguments, environment, output):
    gc.freeze()  # to look through what was imported would copy it
    with open(output, "ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    sys.path.insert(0, os.path.dirname(arguments[0]))
    runpy.run_path(arguments[0], run_name="__main__")
