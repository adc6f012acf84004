"""Where a robust loss is called: within a robust model, or outside of one."""

import contextlib
import threading
import warnings

_place = threading.local()


@contextlib.contextmanager
def within_robust_model():
    """Tells that a robust model calls, which trains by other means."""
    before = getattr(_place, "within", False)
    _place.within = True
    try:
        yield
    finally:
        _place.within = before


def warn(loss):
    """Warns, once for a loss, unless a robust model calls."""
    if getattr(_place, "within", False) or getattr(loss, "_warned", False):
        return
    loss._warned = True
    warnings.warn(
        f"{type(loss).__name__} is called as a plain Keras loss, which is its "
        "base loss: right for an evaluation, while training by it is plain, "
        "not robust training. To train a Keras model robustly, wrap it, "
        "`atent_keras.RobustModel(model.inputs, model.outputs)`, or call "
        "`loss.value_and_gradients` in a loop of one's own",
        stacklevel=4,
    )
