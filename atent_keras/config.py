"""How attacks and evaluations are computed, in all of a program."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from atent_keras import checks

AUTO = "auto"
# Images that are looked at together: enough to fill a device.
_BATCH_SIZE = {"CPU": 128, "GPU": 1024}

_settings: dict[str, Any] = {"jit_compile": AUTO, "batch_size": None}
_batch_size: contextvars.ContextVar[int | None] = contextvars.ContextVar(
    "batch_size", default=None
)


def jit_compile() -> bool | str:
    """Returns whether XLA compiles attacks and evaluations.

    Returns:
        `"auto"`, `True` or `False`; see `set_jit_compile`.
    """
    return _settings["jit_compile"]


def set_jit_compile(value: bool | str) -> None:
    """Says whether XLA compiles what the package computes by itself.

    That are attacks (`model.perturb` included), AutoAttack, the answers that
    evaluations judge, and the counts of randomized smoothing. Training is
    compiled as `model.compile(jit_compile=...)` says, and a network with
    `run_eagerly=True` not at all.

    Args:
        value: `"auto"` (the default): XLA where TensorFlow sees a GPU, and a
            plain graph on a CPU, where XLA's loops over convolutions crawl.
            Or `True` or `False`.

    Raises:
        ValueError: If it is neither.
    """
    if value != AUTO and not isinstance(value, bool):
        raise ValueError(
            f"`jit_compile` must be {AUTO!r}, True or False. Received: "
            f"{value!r}"
        )
    _settings["jit_compile"] = value


def batch_size() -> int:
    """Returns how many images attacks and evaluations look at together."""
    said = _batch_size.get() or _settings["batch_size"]
    return said or _BATCH_SIZE["GPU" if sees_gpu() else "CPU"]


def set_batch_size(value: int | None) -> None:
    """Says how many images attacks and evaluations look at together.

    Results do not depend on it, but for rounding. Where memory runs out, half
    as many are taken, and so on. A call's own `batch_size` comes first.

    Args:
        value: Positive integer; or `None` (the default): 128 on a CPU, 1024
            on a GPU.

    Raises:
        ValueError: If it is neither.
    """
    _require_batch_size(value)
    _settings["batch_size"] = value


@contextlib.contextmanager
def batches_of(value: int | None) -> Iterator[None]:
    """Sets the batch size within a context, unless it is `None`."""
    _require_batch_size(value)
    token = _batch_size.set(_batch_size.get() if value is None else int(value))
    try:
        yield
    finally:
        _batch_size.reset(token)


def uses_xla() -> bool:
    """Whether XLA is to compile attacks and evaluations now."""
    value = jit_compile()
    return sees_gpu() if value == AUTO else bool(value)


def sees_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(tf.config.get_visible_devices("GPU"))


def _require_batch_size(value):
    if value is not None:
        checks.require_count(batch_size=value)
