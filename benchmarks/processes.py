"""Functions in processes of their own, so that their memory is their own."""

import multiprocessing
import pathlib
import re
import time

import numpy as np


class Process:
    """Runs functions elsewhere, each when it is asked to, and times them.

    Several of them, asked in turns, are slowed alike by whatever else the
    machine is doing.

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
        self._pipe.send(name)
        return self._pipe.recv()

    def close(self):
        """Ends the process; returns the MiB that the calls added at most."""
        self._pipe.send(None)
        return self._pipe.recv()


def _serve(pipe, build, arguments):
    functions = build(*arguments)
    # From here on the peak is that of the calls.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = _mebibytes("VmRSS")
    pipe.send(list(functions))
    while (name := pipe.recv()) is not None:
        start = time.perf_counter()
        functions[name]()
        pipe.send(time.perf_counter() - start)
    pipe.send(_mebibytes("VmHWM") - before)


def _mebibytes(name):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 1024


def interleave(processes, rounds):
    """Calls every function of every process once a round.

    Args:
        processes: Dictionary from labels to `Process`es, which are closed.
        rounds: Integer, the number of calls whose time counts, behind two
            that warm up.

    Returns:
        Dictionary from `(label, function)` to `Times`.
    """
    seconds = {
        (label, name): []
        for label, process in processes.items()
        for name in process.names
    }
    for _ in range(rounds + 2):
        for label, name in seconds:
            seconds[label, name].append(processes[label].time(name))
    mebibytes = {label: one.close() for label, one in processes.items()}
    return {
        (label, name): Times(values, mebibytes[label])
        for (label, name), values in seconds.items()
    }


class Times:
    """What the calls of one function took.

    Attributes:
        quartiles: The three quartiles, in ms.
        tracing: Seconds by which the first call was longer than the median.
        mebibytes: What the calls of the process added at most.
    """

    def __init__(self, seconds, mebibytes):
        first, _, *rest = seconds
        self.quartiles = (np.percentile(rest, [25, 50, 75]) * 1e3).tolist()
        self.tracing = first - np.median(rest)
        self.mebibytes = mebibytes

    @property
    def median(self):
        return self.quartiles[1]

    def __str__(self):
        low, median, high = self.quartiles
        return f"{median:8.1f} [{low:.1f}, {high:.1f}]"
