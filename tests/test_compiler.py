import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from atent_keras import compiler


class Halves(tf.Module):
    """A function that runs out of memory beyond so many rows."""

    def __init__(self, fits):
        super().__init__()
        self.fits, self.sizes = fits, []

    def __call__(self, x):
        self.sizes.append(len(x))
        if len(x) > self.fits:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM")
        return x / 2


def in_parts(function, count, batch_size):
    x = np.arange(count, dtype="float32")
    signature = (tf.TensorSpec((None,), tf.float32),)
    made = compiler.Compiled(function, signature)
    for _ in range(2):
        with ak.config.batches_of(batch_size):
            parts = list(made.over(count, lambda rows: (x[rows],)))
        found = np.concatenate([part for _, part in parts])
        np.testing.assert_array_equal(found, x / 2)
        rows = np.concatenate([x[rows] for rows, _ in parts])
        np.testing.assert_array_equal(rows, x)


def test_where_memory_runs_out_it_goes_on_with_half_and_says_so_once():
    function = Halves(fits=6)
    with pytest.warns(UserWarning, match="Memory ran out with 20") as warned:
        in_parts(function, 20, None)
    assert len(warned) == 1
    # Found out once, and remembered.
    assert function.sizes == [20, 10, *[5] * 4, *[5] * 4]


def test_one_row_that_does_not_fit_is_an_error():
    with (
        pytest.warns(UserWarning, match="Memory ran out"),
        pytest.raises(tf.errors.ResourceExhaustedError),
    ):
        in_parts(Halves(fits=0), 3, None)


def test_the_batch_size_is_what_was_said():
    function = Halves(fits=100)
    in_parts(function, 10, 4)
    assert function.sizes == [4, 4, 2] * 2


@pytest.fixture
def xla():
    ak.config.set_jit_compile(True)
    yield
    ak.config.set_jit_compile("auto")


def test_parts_and_shrinking_sets_compile_nothing_new(digits, xla, monkeypatch):
    """XLA compiles once for each shape that a function is called with."""
    compiled, made = {}, compiler.Compiled.__init__

    def count(self, function, signature, xla=False):
        def counted(*arguments):
            shapes = tuple(tuple(one.shape) for one in arguments)
            compiled.setdefault(id(self), set()).add(shapes)
            return function(*arguments)

        kept.append(self)
        made(self, counted, signature, xla)

    kept = []
    monkeypatch.setattr(compiler.Compiled, "__init__", count)
    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Dense(10)(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs)
    threat_model = ak.threat_models.Linf(0.02)
    steps = {"num_steps": 3}
    attack = ak.attacks.AutoAttack(
        threat_model,
        [
            ak.attacks.APGD(threat_model, **steps),
            ak.attacks.APGDT(threat_model, targets=3, **steps),
        ],
        verbose=0,
    )
    x, y = digits[0][:70], np.argmax(model.predict(digits[0][:70]), axis=1)
    for seed in range(2):
        # Parts of 32, 32 and 6, then fewer, round by round.
        result = attack.evaluate(model, x, y, seed=seed, batch_size=32)
    assert 0 < result.stages[-1].accuracy < result.stages[1].accuracy < 1
    counts = sorted(len(shapes) for shapes in compiled.values())
    assert len(counts) >= 4 and counts[-1] <= 2


def test_settings_are_checked():
    for value in ("on", 1, None):
        with pytest.raises(ValueError, match="`jit_compile` must be .*auto"):
            ak.config.set_jit_compile(value)
    for value in (0, -1, 1.5, "all"):
        with pytest.raises(ValueError, match="`batch_size` must be"):
            ak.config.set_batch_size(value)
    with pytest.raises(ValueError, match="`batch_size` must be"):
        with ak.config.batches_of(0):
            pass


def test_a_call_s_batch_size_comes_before_the_programs():
    ordinary = ak.config.batch_size()
    ak.config.set_batch_size(7)
    try:
        with ak.config.batches_of(3):
            with ak.config.batches_of(None):
                assert ak.config.batch_size() == 3
        assert ak.config.batch_size() == 7
    finally:
        ak.config.set_batch_size(None)
    assert ak.config.batch_size() == ordinary
