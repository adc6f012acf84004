"""Where the time of a compiled function goes, by operation."""

import collections
import pathlib
import re
import tempfile

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

# What the graph's own operations are called: "scope/name:Operation".
_OPERATION = re.compile(r"[^:]:(\w+)$")


def profile(function, most=12):
    """Runs a function that was compiled before; returns its operations.

    Returns:
        Dictionary from TensorFlow's names of the operations that took
        longest, and "others", to their shares of the time of all.
    """
    function()
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            function()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    spent = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                if found := _OPERATION.search(name):
                    spent[found[1]] += event.duration_ps
    total = sum(spent.values())
    shares = {name: part / total for name, part in spent.most_common(most)}
    return {**shares, "others": 1 - sum(shares.values())}
