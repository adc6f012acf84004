"""Functions in processes of their own, so that their memory is their own."""

import multiprocessing
import pathlib
import re
import time

import numpy as np

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
        """Returns the MiB that the calls so far have added at most."""
        return self._ask(_PEAK)

    def close(self):
        self._pipe.send(None)

    def _ask(self, question):
        self._pipe.send(question)
        return self._pipe.recv()


_PEAK = "how much memory"


def _serve(pipe, build, arguments):
    functions = build(*arguments)
    # From here on the peak is that of the calls.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = _mebibytes("VmRSS")
    pipe.send(list(functions))
    while (name := pipe.recv()) is not None:
        if name == _PEAK:
            pipe.send(_mebibytes("VmHWM") - before)
            continue
        if isinstance(name, tuple):
            pipe.send(functions[name[0]]())
            continue
        start = time.perf_counter()
        functions[name]()
        pipe.send(time.perf_counter() - start)


def _mebibytes(name):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 1024


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
