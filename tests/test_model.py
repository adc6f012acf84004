import copy
import functools
import itertools
import json
import os
import pathlib
import pickle
import re
import subprocess
import sys
import warnings
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

import atent_keras as ak
import rivals
import scripts
from atent_keras.attacks import PGD
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import assert_repeats
from conftest import cross_entropy
from conftest import largest_difference
from conftest import small_loss
from conftest import small_model
from conftest import small_network

STILL = {"noise_scale": 0.0, "random_start": False}


@keras.saving.register_keras_serializable("test_model")
class Subclassed(ak.ATENTModel):
    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        self.flatten = keras.layers.Flatten()
        self.hidden = keras.layers.Dense(units, activation="relu")
        self.logits = keras.layers.Dense(10)
        self.units = units

    def call(self, x):  # without a `training` argument
        return self.logits(self.hidden(self.flatten(x)))

    def get_config(self):
        return {"units": self.units, "name": self.name}


@keras.saving.register_keras_serializable("test_model")
class FromTensors(ak.ATENTModel):
    def __init__(self, units=8, **kwargs):
        inputs = keras.Input((8, 8, 1))
        x = keras.layers.Flatten()(inputs)
        x = keras.layers.Dense(units, activation="relu")(x)
        super().__init__(inputs, keras.layers.Dense(10)(x), **kwargs)
        self.units = units

    def get_config(self):
        return {"units": self.units, "name": self.name}


@keras.saving.register_keras_serializable("test_model")
class Renamed(ak.ATENTModel):
    """A subclass of which functional models are made."""


def functional():
    network = small_network()
    return ak.ATENTModel(network.inputs, network.outputs)


def functional_subclass():
    network = small_network()
    return Renamed(inputs=network.input, outputs=network.output)


FORMS = [functional, Subclassed, FromTensors, functional_subclass]


@pytest.mark.parametrize(
    "order", list(itertools.permutations(range(4))), ids=str
)
def test_all_forms_live_together(order, batch):
    for index in order:
        model = FORMS[index]()
        assert isinstance(model, ak.ATENTModel)
        assert model(batch[0]).shape == (32, 10)
    assert ak.RobustModel.__bases__ == (keras.Model,)
    assert ak.ATENTModel.__bases__ == (ak.RobustModel,)
    assert Subclassed.__bases__ == FromTensors.__bases__ == (ak.ATENTModel,)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_every_form_learns(form, mode, digits):
    model = form()
    model.compile(
        keras.optimizers.Adam(0.01),
        small_loss(norm=Linf(0.02), step_size=0.02, num_steps=2),
        metrics=["accuracy"],
        run_eagerly=mode == "eager",
        jit_compile=mode == "xla",
    )
    # Whole batches: each size would be compiled anew.
    data = digits[0][:1700], digits[1][:1700]
    history = model.fit(*data, batch_size=100, epochs=4, verbose=0).history
    assert set(history) == {"loss", "accuracy"}
    assert history["accuracy"][-1] > 0.7 > history["accuracy"][0]


@pytest.mark.parametrize("form", FORMS)
def test_saved_loaded_and_trained_on(form, batch, tmp_path):
    x, y = batch
    model = form()
    model.compile("adam", small_loss(alpha=0.5, **STILL), metrics=["accuracy"])
    model.fit(x, y, epochs=3, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, form if isinstance(form, type) else ak.ATENTModel)
    assert loaded.optimizer.iterations == 3
    assert loaded.loss.get_config() == model.loss.get_config()
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    for each in (model, loaded):
        each.fit(x, y, epochs=2, verbose=0, shuffle=False)
    assert largest_difference(loaded.get_weights(), model.get_weights()) < 1e-6
    assert loaded.optimizer.iterations == 5


def test_exported_it_needs_tensorflow_alone(batch, tmp_path):
    x, y = batch
    np.save(tmp_path / "x.npy", x)
    expected = {}
    for form in FORMS:
        model = form()
        model.compile("sgd", small_loss(), jit_compile=False)
        model.fit(x, y, verbose=0)
        model.export(str(tmp_path / form.__name__), verbose=False)
        expected[form.__name__] = model.predict(x, verbose=0)
    # One process asks all of them: TensorFlow takes seconds to start.
    script = (
        "import sys, numpy as np, tensorflow as tf\n"
        "x = np.load('x.npy')\n"
        "for name in sys.argv[1:]:\n"
        "    served = tf.saved_model.load(name)\n"
        "    np.save(f'{name}.npy', served.serve(x))\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *expected],
        cwd=tmp_path,
        env={**os.environ, **scripts.CPU},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "atent_keras" not in done.stdout.split()
    for name, y_pred in expected.items():
        served = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_allclose(served, y_pred, atol=1e-5, err_msg=name)


@functools.cache
def small_cnn_after(norm, mode):
    """Weights of a small CNN after one and after twenty steps of a mode."""
    digits = load_digits()
    x = (digits.images[: 16 * 20, ..., None] / 16).astype("float32")
    x = np.repeat(np.repeat(x, 2, 1), 2, 2)
    keras.utils.set_random_seed(0)
    network = ak.architectures.SmallCNN((16, 16, 1), dropout=0.0)
    model = small_model(
        network=network,
        loss=small_loss(norm=norm, **STILL),
        optimizer=keras.optimizers.SGD(0.01),
        run_eagerly=mode == "eager",
        jit_compile=mode == "xla",
    )
    weights = {}

    def keep(batch, logs=None):
        weights[batch + 1] = model.get_weights()

    model.fit(
        x,
        digits.target[: 16 * 20],
        batch_size=16,
        shuffle=False,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=keep)],
    )
    return weights


@pytest.mark.parametrize("norm", [Linf(0.1), L2(1.0)])
@pytest.mark.parametrize("mode", ["graph", "xla"])
@pytest.mark.parametrize("steps, tolerance", [(1, 1e-5), (20, 1e-4)])
def test_modes_train_the_same_small_cnn(norm, mode, steps, tolerance):
    found, expected = (
        small_cnn_after(norm, each)[steps] for each in (mode, "eager")
    )
    assert largest_difference(found, expected) < tolerance


def test_a_step_of_fit_by_hand(batch):
    x, y = batch
    model = small_model(small_loss(**STILL), keras.optimizers.SGD(0.1))
    before = model.get_weights()
    step = model.loss.value_and_gradients(model, x, y)
    history = model.fit(x, y, batch_size=32, verbose=0, shuffle=False).history
    after = [w - 0.1 * np.asarray(g) for w, g in zip(before, step.gradients)]
    assert largest_difference(model.get_weights(), after) < 1e-6
    assert history["loss"][0] == pytest.approx(float(step.loss), rel=1e-5)
    right = np.argmax(step.y_pred, axis=-1) == y
    assert history["accuracy"][0] == pytest.approx(right.mean())


def test_without_a_ball_it_is_plain_keras(digits):
    x, y = digits[0][:320], digits[1][:320]
    network = small_network()
    start = network.get_weights()
    network.compile(keras.optimizers.SGD(0.1), cross_entropy())
    class_weight = {label: 1 + label for label in range(10)}
    settings = {"batch_size": 50, "shuffle": False, "verbose": 0, "epochs": 2}
    plain = network.fit(x, y, class_weight=class_weight, **settings).history
    expected = network.get_weights()
    network.set_weights(start)
    model = small_model(small_loss(norm=Linf(0), alpha=1.0), network=network)
    ours = model.fit(x, y, class_weight=class_weight, **settings).history
    assert largest_difference(model.get_weights(), expected) < 1e-5
    np.testing.assert_allclose(ours["loss"], plain["loss"], rtol=1e-4)


def test_evaluate_is_clean_and_plain(digits):
    model = small_model()
    loss, accuracy = model.evaluate(*digits, verbose=0)
    y_pred = model.predict(digits[0], verbose=0)
    assert loss == pytest.approx(
        float(cross_entropy()(digits[1], y_pred)), rel=1e-4
    )
    right = y_pred.argmax(-1) == digits[1]
    assert accuracy == pytest.approx(right.mean(), abs=1e-6)


def test_evaluate_wants_a_compiled_model(batch):
    network = small_network()
    model = ak.ATENTModel(network.inputs, network.outputs)
    with pytest.raises(ValueError, match="compile"):
        model.evaluate(*batch, verbose=0)


def test_perturb_is_the_compiled_sampler_s_call(batch):
    model = small_model()
    x_adv = model.perturb(*batch, seed=4)
    assert_repeats(model.loss.sampler(model, *batch, 4), x_adv)


@pytest.mark.parametrize(
    "method, norm",
    [
        (small_loss, L2),
        (lambda ball: ak.TRADESLoss(PGD(ball, 0.05, 2)), L2),
        (lambda ball: ak.MARTLoss(PGD(ball, 0.05, 2)), Linf),
    ],
    ids=["ATENT", "TRADES", "MART"],
)
def test_data_without_bounds(method, norm, digits, tmp_path):
    x, y = 6 * (digits[0] - 0.3), digits[1]  # from -1.8 to 4.2
    model = small_model(method(norm(0.1, bounds=None)), "adam")
    before = model.evaluate(x, y, verbose=0)
    model.fit(x, y, verbose=0)
    assert model.evaluate(x, y, verbose=0)[1] > before[1] + 0.2
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert again.loss.threat_model == norm(0.1, bounds=None)
    x_adv = again.perturb(x[:8], y[:8], seed=0)
    assert 0 < np.max(norm(0.1).norm(x_adv - x[:8])) < 0.1 * (1 + 1e-4)
    with pytest.raises(ValueError, match="must hold finite numbers"):
        model.fit(x * np.nan, y, verbose=0)


def test_the_seed_decides_the_training(batch):
    def weights(seed):
        keras.utils.set_random_seed(seed)
        model = small_model(
            small_loss(noise_scale=0.1), network=small_network(dropout=0.5)
        )
        model.fit(*batch, epochs=3, verbose=0)
        return model.get_weights()

    found = weights(1)
    assert_repeats(weights(1), found)
    assert largest_difference(found, weights(2)) > 1e-3


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y, scale=1):
        super().__init__()
        self.x, self.y = x * scale, y

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.x[index * 16 :][:16], self.y[index * 16 :][:16]


def forms_of_data(x, y):
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    return {
        "arrays": (x, y),
        "tensors": (tf.constant(x), tf.constant(y)),
        "dataset": (dataset,),
        "generator": (((x[i:][:16], y[i:][:16]) for i in (0, 16)),),
        "PyDataset": (Batches(x, y),),
    }


KINDS = ["arrays", "tensors", "dataset", "generator", "PyDataset"]


def trained_by(kind, steps_per_execution, batch):
    keras.utils.set_random_seed(0)
    model = small_model(
        small_loss(**STILL), steps_per_execution=steps_per_execution
    )
    settings = {"verbose": 0, "shuffle": False}
    if kind in ("arrays", "tensors"):
        settings["batch_size"] = 16
    if kind == "generator":
        settings["steps_per_epoch"] = 2
    model.fit(*forms_of_data(*batch)[kind], **settings)
    assert model.optimizer.iterations == 2
    return model.get_weights()


@pytest.fixture(scope="module", params=[1, 2])
def trained_by_arrays(request, digits):
    """So many steps per execution, and what arrays come to."""
    batch = digits[0][:32], digits[1][:32]
    return request.param, trained_by("arrays", request.param, batch)


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_of_data_trains_alike(kind, trained_by_arrays, batch):
    steps_per_execution, expected = trained_by_arrays
    found = trained_by(kind, steps_per_execution, batch)
    assert largest_difference(found, expected) < 1e-6


class Layers(keras.layers.Layer):
    """A network that would take integers for integers."""

    def __init__(self):
        super().__init__()
        self.flatten = keras.layers.Flatten()
        self.logits = keras.layers.Dense(10)

    def call(self, x):
        return self.logits(self.flatten(x) / 255)


class Bytes(ak.ATENTModel):
    def __init__(self):
        super().__init__()
        self.layers_of_bytes = Layers()

    def call(self, x):
        return self.layers_of_bytes(x)


def bytes_model():
    keras.utils.set_random_seed(0)
    model = Bytes()
    loss = small_loss(Linf(8.0, bounds=(0, 255)), step_size=4.0, **STILL)
    model.compile("adam", loss=loss, metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def trained_by_floats(digits):
    """What floating-point images in 0..255 come to, and those as bytes."""
    x, y = np.round(255 * digits[0][:32]), digits[1][:32]
    model = bytes_model()
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    expected = model.get_weights(), model.evaluate(x, y, verbose=0)
    return *expected, model.perturb(x, y, seed=0), x.astype("uint8"), y


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_bytes_train_as_their_values_do(kind, trained_by_floats):
    weights, evaluated, x_adv, *batch = trained_by_floats
    model = bytes_model()
    settings = {"validation_data": forms_of_data(*batch)[kind]}
    if kind in ("arrays", "tensors"):
        settings["batch_size"] = 16
    elif kind in ("dataset", "PyDataset"):
        (settings["validation_data"],) = settings["validation_data"]
    else:
        settings = {"steps_per_epoch": 2}
    data = forms_of_data(*batch)[kind]
    model.fit(*data, verbose=0, shuffle=False, **settings)
    assert largest_difference(model.get_weights(), weights) < 1e-6
    data = forms_of_data(*batch)[kind]
    found = model.evaluate(*data, verbose=0)
    np.testing.assert_allclose(found, evaluated, rtol=1e-5)
    if kind in ("arrays", "tensors"):
        found = model.perturb(*data, seed=0)
        assert found.dtype == "float32"
        np.testing.assert_allclose(found, x_adv, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_refused_in_other_bounds(kind, batch, untouched):
    x = (255 * batch[0]).astype("uint8")
    message = r"where the bounds are \(0, 255\). Received: dtype uint8 and "
    with pytest.raises(TypeError, match=message):
        untouched["graph"].fit(*forms_of_data(x, batch[1])[kind], verbose=0)


@pytest.mark.parametrize("bounds", [(0, 1), (-1, 1), (0, 255)])
def test_dictionaries_are_refused_with_the_line_that_makes_pairs(bounds, batch):
    x, y = (255 * batch[0]).astype("uint8"), batch[1]
    named = {"id": np.arange(32), "image": x, "label": y}
    data = tf.data.Dataset.from_tensor_slices(named).batch(32)
    model = small_model(small_loss(Linf(0.1, bounds)))
    for call in (model.fit, model.evaluate):
        with pytest.raises(TypeError, match="'id', 'image', 'label'") as error:
            call(data, verbose=0)
    line = re.search("`(data = .*)`", str(error.value))[1]
    space = {"data": data}
    with warnings.catch_warnings():
        # A lambda without a source file.
        warnings.simplefilter("ignore")
        exec(line, space)
    assert np.isfinite(model.evaluate(space["data"], verbose=0)).all()
    with pytest.raises(TypeError, match=r"make pairs: `\(batch\["):
        model.fit(named, verbose=0)


@pytest.fixture(scope="module")
def untouched():
    """A model of each mode, for data that it must refuse."""
    return {
        "eager": small_model(run_eagerly=True),
        "graph": small_model(jit_compile=False),
        "xla": small_model(jit_compile=True),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize(
    "change, error, message",
    [
        (lambda x, y: (x * 255, y), ValueError, "bounds .* Received: values"),
        (lambda x, y: (x - 0.1, y), ValueError, "bounds .* Received: values"),
        (lambda x, y: (x * np.nan, y), ValueError, "bounds .* Received: val"),
        (lambda x, y: (x.astype(int), y), TypeError, "floating-point"),
        (lambda x, y: (x, y + 5), ValueError, "0..9 .* Received: .* 5 to 14"),
        (lambda x, y: (x, y - 1), ValueError, "0..9 .* Received: .* -1 to 8"),
        (
            lambda x, y: (x, keras.utils.to_categorical(y, 10)),
            ValueError,
            "expects integer labels .* Received",
        ),
    ],
)
def test_bad_data_never_reach_a_step(
    kind, mode, change, error, message, batch, untouched
):
    model = untouched[mode]
    before = model.get_weights()
    data = forms_of_data(*change(*batch))[kind]
    with pytest.raises(error, match=message):
        model.fit(*data, verbose=0)
    assert largest_difference(model.get_weights(), before) == 0
    with pytest.raises(error, match=message):
        model.evaluate(*forms_of_data(*change(*batch))[kind], verbose=0)
    if kind == "arrays":
        for call in (model.train_on_batch, model.perturb):
            with pytest.raises(error, match=message):
                call(*data)


def test_a_look_at_a_shuffled_data_set_does_not_change_its_order(batch):
    def order(look):
        dataset = tf.data.Dataset.range(32).shuffle(32, seed=1)
        seen = []

        def record(index):
            seen.append(int(index))
            return batch[0][index], np.int64(batch[1][index])

        def load(index):
            x, y = tf.numpy_function(record, [index], (tf.float32, tf.int64))
            return tf.ensure_shape(x, (8, 8, 1)), tf.ensure_shape(y, ())

        dataset = dataset.map(load).batch(16)
        model = small_model()
        if not look:
            model = small_network()
            model.compile("sgd", cross_entropy())
        model.fit(dataset, epochs=2, verbose=0)
        return seen

    assert order(True) == order(False)


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
def test_empty_data(batch):
    model = small_model()
    x, y = batch
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    for data in (
        (x[:0], y[:0]),
        (dataset.take(0),),
        (dataset.filter(lambda x, y: False),),
        ((pair for pair in ()),),
    ):
        with pytest.raises(ValueError, match="The data set is empty"):
            model.fit(*data, verbose=0)


@pytest.mark.parametrize("loss", ["mse", cross_entropy(), None])
def test_a_plain_loss_is_refused_with_the_fix(loss, batch):
    model = functional()
    model.compile("sgd", loss)
    for call in (model.fit, model.train_on_batch, model.perturb):
        with pytest.raises(ValueError, match="ATENTRegularizedLoss.* Received"):
            call(*batch)


def test_inputs_and_outputs_must_be_single(batch):
    x, y = batch
    model = small_model()
    for several in ({"image": x}, [x, x]):
        with pytest.raises(TypeError, match="single array"):
            model.fit(several, y, verbose=0)
    one, two = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(keras.layers.Add()([one, two]))
    double = ak.ATENTModel([one, two], keras.layers.Dense(10)(flat))
    double.compile("sgd", small_loss())
    with pytest.raises(ValueError, match="single input. Received: 2"):
        double.fit(x, y, verbose=0)
    flat = keras.layers.Flatten()(one)
    forked = ak.ATENTModel(one, [flat, flat])
    forked.compile("sgd", [small_loss(), None])
    loss = small_loss()
    with pytest.raises(ValueError, match="must give one tensor"):
        loss.value_and_gradients(forked, x, y)


@pytest.mark.parametrize("form", ["sparse", "categorical"])
def test_logits_and_probabilities(form, batch):
    x, y = batch
    kind = keras.losses.SparseCategoricalCrossentropy
    if form == "categorical":
        kind = keras.losses.CategoricalCrossentropy
        y = keras.utils.to_categorical(y, 10)
    network = small_network()
    softmax = keras.Model(network.input, keras.layers.Softmax()(network.output))
    for net, loss, message in (
        (softmax, kind(from_logits=True), "expects logits .* Received"),
        (network, kind(from_logits=False), "expects probabilities .* Received"),
    ):
        model = small_model(small_loss(loss=loss), network=net)
        with pytest.raises(ValueError, match=message):
            model.fit(x, y, verbose=0)
        with pytest.raises(ValueError, match=message):
            ak.attacks.FGSM(Linf(0.1), loss=loss)(net, x, y)
        with pytest.raises(ValueError, match=message):
            model.loss.value_and_gradients(net, x, y)
    model = small_model(small_loss(loss=kind()), network=softmax)
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()


def test_binary_networks(batch):
    x, y = batch[0], batch[1] % 2
    inputs = keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(inputs)
    for activation in (None, "sigmoid"):
        outputs = keras.layers.Dense(1, activation=activation)(flat)
        network = keras.Model(inputs, outputs)
        for from_logits in (True, False):
            loss = keras.losses.BinaryCrossentropy(from_logits=from_logits)
            model = small_model(small_loss(loss=loss), network=network)
            if from_logits == (activation is None):
                history = model.fit(x, y[:, None], verbose=0).history
                assert np.isfinite(history["loss"]).all()
            else:
                with pytest.raises(ValueError, match="expects .* Received"):
                    model.fit(x, y[:, None], verbose=0)


def test_partial_batches_and_a_batch_of_one(digits):
    x, y = digits[0][:33], digits[1][:33]
    model = small_model(jit_compile=False)
    history = model.fit(x, y, batch_size=16, verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize("jit_compile", [False, True])
def test_one_trace_a_batch_shape(jit_compile, digits):
    traces = []

    class Traced(keras.layers.Dense):
        def call(self, x, training=None):
            if training:
                traces.append(x.shape)
            return super().call(x)

    inputs = keras.Input((8, 8, 1))
    outputs = Traced(10)(keras.layers.Flatten()(inputs))
    model = small_model(
        network=keras.Model(inputs, outputs), jit_compile=jit_compile
    )
    x, y = digits[0][:80], digits[1][:80]  # two batches of 32, one of 16
    model.fit(x, y, epochs=2, verbose=0)
    before = len(traces)
    model.fit(x, y, epochs=2, verbose=0)
    assert len(traces) == before


def test_a_network_of_unknown_size(batch):
    model = ak.ATENTModel(
        *(
            lambda i: (
                i,
                keras.layers.Dense(10)(
                    keras.layers.GlobalAveragePooling2D()(
                        keras.layers.Conv2D(4, 3)(i)
                    )
                ),
            )
        )(keras.Input((None, None, 1)))
    )
    model.compile("sgd", small_loss())
    assert np.isfinite(model.fit(*batch, verbose=0).history["loss"]).all()
    model = Subclassed()
    model.compile("sgd", small_loss())
    signature = (
        tf.TensorSpec((None, None, None, 1), tf.float32),
        tf.TensorSpec((None,), tf.int64),
    )
    dataset = tf.data.Dataset.from_generator(
        lambda: iter([batch]), output_signature=signature
    )
    with pytest.raises(ValueError, match="shape of the images must be known"):
        model.fit(dataset, verbose=0)
    signature = (tf.TensorSpec(None, tf.float32), signature[1])
    dataset = tf.data.Dataset.from_generator(
        lambda: iter([batch]), output_signature=signature
    )
    with pytest.raises(ValueError, match="known shape .* Received"):
        model.fit(dataset, verbose=0)


def test_a_custom_loop_in_a_function(digits):
    x, y = (part[:1700] for part in digits)
    network, loss = small_network(), small_loss(norm=Linf(0.02))
    optimizer = keras.optimizers.Adam(0.01)

    @tf.function
    def train_step(x, y):
        step = loss.value_and_gradients(network, x, y)
        optimizer.apply_gradients(
            zip(step.gradients, network.trainable_variables)
        )
        return step.loss

    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(100)
    losses = [float(train_step(*batch)) for _ in range(3) for batch in dataset]
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    with pytest.raises(tf.errors.InvalidArgumentError, match="bounds"):
        train_step(tf.constant(x[:100] * 255), tf.constant(y[:100]))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("form", [functional, Subclassed])
def test_mixed_precision(policy, form, digits):
    keras.config.set_dtype_policy(policy)
    try:
        model = form()
        model.compile(keras.optimizers.Adam(0.01), small_loss(norm=Linf(0.02)))
        history = model.fit(*digits, epochs=3, verbose=0).history["loss"]
        assert history[-1] < 0.7 * history[0]
        step = model.loss.value_and_gradients(model, *digits)
        assert step.x_adv.dtype == tf.float32
        moved = np.max(np.abs(step.x_adv - digits[0]))
        assert moved == pytest.approx(0.02, rel=1e-5)
        assert all(g.dtype == tf.float32 for g in step.gradients)
        # The loss scale of float16 is not left in the gradients.
        norm = np.sqrt(sum(float(tf.reduce_sum(g**2)) for g in step.gradients))
        assert norm < 100
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "copied",
    [lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy],
    ids=["pickle", "deepcopy"],
)
def test_copies_train_on_alike(form, copied, batch):
    model = form()
    model.compile("adam", small_loss(), run_eagerly=True)
    model.fit(*batch, verbose=0)
    other = copied(model)
    assert type(other) is type(model)
    assert other.loss.get_config() == model.loss.get_config()
    for each in (model, other):
        each.fit(*batch, verbose=0, shuffle=False)
    assert largest_difference(other.get_weights(), model.get_weights()) < 1e-6
    with pytest.raises(AttributeError, match="Call `compile`"):
        other.loss = small_loss()


def test_files_of_version_0_1_0_load():
    folder = pathlib.Path(__file__).parent / "golden"
    model = keras.models.load_model(folder / "atent_model_0.1.0.keras")
    assert isinstance(model, ak.ATENTModel)
    assert (model.loss.alpha, model.loss.loss_iterates) == (0.8, 2)
    assert model.loss.sampler == ak.attacks.SGLD(Linf(0.1), 0.04, 3)
    assert model.optimizer.iterations == 1
    x = np.linspace(0, 1, 48).reshape(8, 6).astype("float32")
    expected = [
        [-0.06071374, -0.0436594, -0.1190072],
        [-0.127952, -0.1067896, -0.19035798],
    ]
    np.testing.assert_allclose(model(x[:2]), expected, atol=1e-6)
    model.fit(x, np.arange(8) % 3, verbose=0)


def test_a_file_with_an_unknown_method_names_the_version(tmp_path):
    model = rivals.model_of(rivals.awp(rivals.trades()))
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        parts = {name: file.read(name) for name in file.namelist()}
    text = parts["config.json"].decode()
    for known in ("AdversarialWeightPerturbation", "TRADESLoss"):
        config = json.loads(text.replace(known, "FooLoss"))
        config["compile_config"]["loss"]["module"] = None
        parts["config.json"] = json.dumps(config).encode()
        with zipfile.ZipFile(tmp_path / "other.keras", "w") as file:
            for name, content in parts.items():
                file.writestr(name, content)
        message = f"this version of atent_keras, {ak.__version__}.*FooLoss"
        with pytest.raises(ValueError, match=f"(?s){message}"):
            keras.models.load_model(tmp_path / "other.keras")


@pytest.mark.parametrize("kind", [ak.RobustModel, ak.ATENTModel])
def test_a_plain_loss_is_refused_by_name(kind):
    model = rivals.model_of(cross_entropy(), kind=kind)
    with pytest.raises(ValueError, match=f"{kind.__name__} must be compiled"):
        rivals.fit(model, 1)


@pytest.mark.parametrize("form", FORMS)
def test_only_compile_changes_the_loss(form, batch):
    model = form()
    loss = small_loss()
    model.compile("sgd", loss, run_eagerly=True)

    def change(batch, logs=None):
        model.loss = small_loss()

    for other in (small_loss(), "mse", None, [loss, loss]):
        with pytest.raises(AttributeError, match="Call `compile`.* Received"):
            model.loss = other
    callback = keras.callbacks.LambdaCallback(on_train_batch_end=change)
    with pytest.raises(AttributeError, match="`radius_schedule`. Received"):
        model.fit(*batch, callbacks=[callback], verbose=0)
    assert model.loss is loss
    model.loss = loss
    other = small_loss()
    model.compile("sgd", other, run_eagerly=True)
    assert model.loss is other


class Duck:
    """A robust loss of one's own, of the least that is asked for."""

    def value_and_gradients(self, model, x, y, sample_weight=None, seed=None):
        with tf.GradientTape() as tape:
            y_pred = model(x, training=True)
            loss = cross_entropy()(y, y_pred, sample_weight)
        gradients = tape.gradient(loss, model.trainable_variables)
        return ak.losses.Step(loss, gradients, x, y_pred)


class CallableDuck(Duck):
    def __call__(self, y, y_pred):
        return cross_entropy()(y, y_pred)


@pytest.mark.parametrize("duck", [Duck, CallableDuck])
def test_a_loss_of_ones_own_needs_one_method(duck):
    plain = rivals.model_of(cross_entropy(), kind=keras.Model, penalized=False)
    rivals.fit(plain)
    model = rivals.model_of(duck(), penalized=False, metrics=["accuracy"])
    rivals.fit(model)
    assert largest_difference(model.get_weights(), plain.get_weights()) < 1e-6
    x, y = rivals.data()
    if duck is Duck:
        with pytest.raises(ValueError, match="must be callable.* Received"):
            model.evaluate(x, y, verbose=0)
    else:
        _, accuracy = model.evaluate(x, y, verbose=0)
        right = model.predict(x, verbose=0).argmax(-1) == y
        assert accuracy == pytest.approx(right.mean())
    with pytest.raises(ValueError, match="must have an `attack`. Received"):
        model.perturb(x, y)


def test_killed_in_an_epoch_it_ends_with_the_same_weights(tmp_path):
    """Warm-up, radius and noise go on where the checkpoint found them."""
    steps, killed_after = 8, 5

    def model():
        trades = rivals.trades(
            radius_schedule=keras.optimizers.schedules.PolynomialDecay(
                0.2, steps, 1.0
            )
        )
        return rivals.model_of(
            rivals.awp(trades, 0.1, warmup_steps=killed_after + 1),
            optimizer=keras.optimizers.Adam(0.1),
            jit_compile=False,
        )

    whole, killed = model(), model()
    rivals.fit(whole, steps)

    def checkpoint(step, logs=None):
        killed.save(tmp_path / "model.keras")
        if step + 1 == killed_after:
            raise KeyboardInterrupt

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=checkpoint)
    with pytest.raises(KeyboardInterrupt):
        rivals.fit(killed, steps, callbacks=[callback])
    # Another process has another seed.
    keras.utils.set_random_seed(1)
    resumed = keras.models.load_model(tmp_path / "model.keras")
    x, y = (
        part[killed_after * rivals.BATCH_SIZE :] for part in rivals.data(steps)
    )
    resumed.fit(x, y, rivals.BATCH_SIZE, shuffle=False, verbose=0)
    assert resumed.optimizer.iterations == steps
    assert largest_difference(resumed.get_weights(), whole.get_weights()) < 1e-6
