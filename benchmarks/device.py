"""The device that a benchmark runs on: what it is, and how it compiles."""

import pathlib
import platform
import re

import keras
import tensorflow as tf
from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_bool(
    "jit_compile", None, "Whether XLA compiles (default: on a GPU)."
)
flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_bfloat16", "mixed_float16"],
    "Keras's dtype policy.",
)


def has_gpu():
    return bool(tf.config.list_physical_devices("GPU"))


def jit_compile():
    """Whether XLA compiles, by the flag or else by the device."""
    return has_gpu() if FLAGS.jit_compile is None else FLAGS.jit_compile


def name():
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return details.get("device_name", gpus[0].name)
    cpus = pathlib.Path("/proc/cpuinfo")
    text = cpus.read_text() if cpus.exists() else ""
    model = re.search(r"model name\s*:\s*(.+)", text)
    return model[1] if model else platform.machine()


def described():
    """What a table's figures depend on, as a dictionary."""
    tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    return {
        "device": name(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "precision": FLAGS.precision,
        "jit_compile": jit_compile(),
        "tf32": has_gpu() and tf32,
    }


def header():
    """The same as a line of text."""
    found = described()
    return (
        f"{found['device']}, TensorFlow {found['tensorflow']}, Keras "
        f"{found['keras']}, {found['precision']}, "
        f"{'XLA' if found['jit_compile'] else 'graph'}, "
        f"TF32 {'on' if found['tf32'] else 'off'}"
    )
