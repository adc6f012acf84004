"""Functions in processes of their own, so that their memory is their own."""

import multiprocessing
import os
import pathlib
import re
import time

import numpy as np
import tensorflow as tf

# Several processes share a GPU, of which each would take all memory at once.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

WARM_UP = 1  # calls that do not count: the first one compiles


class Process:
    """Runs functions elsewhere, each when it is asked to, and times them.

    Args:
        build: Picklable function that returns the functions, by name.
        *arguments: Its arguments.
    """

    def __init__(self, build, *arguments):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, build, arguments), daemon=True
        )
        process.start()
        theirs.close()
        self.names = self._pipe.recv()

    def time(self, name):
        """Returns the seconds that a call of a function takes."""
        return self._ask(name)

    def call(self, name):
        """Returns what a function gives."""
        return self._ask((name,))

    def peak(self):
        """Returns the MiB that the calls so far have taken at most.

        Of a GPU's memory all that was in use, as other libraries count; of the
        machine's what the calls have added.
        """
        return self._ask(_PEAK)

    def close(self):
        self._pipe.send(None)

    def _ask(self, question):
        self._pipe.send(question)
        return self._pipe.recv()


_PEAK = "how much memory"


def _serve(pipe, build, arguments):
    functions = build(*arguments)
    peak = _peak_from_here()
    pipe.send(list(functions))
    while (name := pipe.recv()) is not None:
        if name == _PEAK:
            pipe.send(peak())
            continue
        if isinstance(name, tuple):
            pipe.send(functions[name[0]]())
            continue
        start = time.perf_counter()
        functions[name]()
        pipe.send(time.perf_counter() - start)


def _peak_from_here():
    """Returns a function that gives the peak, in MiB, from here on."""
    if tf.config.list_physical_devices("GPU"):
        memory = tf.config.experimental
        memory.reset_memory_stats("GPU:0")
        return lambda: memory.get_memory_info("GPU:0")["peak"] / 2**20
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = _mebibytes("VmRSS")
    return lambda: _mebibytes("VmHWM") - before


def _mebibytes(name):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 1024


def first(calls):
    """Times each function once: its first call, which compiles.

    Args:
        calls: As in `interleave`.

    Returns:
        Dictionary from the same to the seconds.
    """
    return {key: process.time(name) for key, (process, name) in calls.items()}


def interleave(calls, rounds):
    """Times functions in turns, so that a busy machine slows all alike.

    Args:
        calls: Dictionary from anything to a pair of a `Process` and the name
            of one of its functions.
        rounds: Integer, how often each is timed, once it is warm.

    Returns:
        Dictionary from the same to the three quartiles, in ms.
    """
    seconds = {key: [] for key in calls}
    for _ in range(WARM_UP + rounds):
        for key, (process, name) in calls.items():
            seconds[key].append(process.time(name))
    return {
        key: (np.percentile(values[WARM_UP:], [25, 50, 75]) * 1e3).tolist()
        for key, values in seconds.items()
    }


def spread(quartiles):
    """Returns the quartiles as text: the median, then the others."""
    low, median, high = quartiles
    return f"{median:.1f} [{low:.1f}, {high:.1f}]"
