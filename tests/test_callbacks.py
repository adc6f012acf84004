import keras
import pytest
import tensorflow as tf

import atent_keras as ak
from atent_keras.attacks import PGD
from atent_keras.callbacks import RobustAccuracy
from atent_keras.threat_models import Linf
from conftest import small_model


def test_the_figure_is_that_of_evaluate_robustness(digits):
    x, y = digits
    model = small_model(optimizer="adam")
    data = tf.data.Dataset.from_tensor_slices((x[1500:], y[1500:])).batch(100)
    callback = RobustAccuracy(data)
    history = model.fit(
        x[:1500], y[:1500], epochs=3, verbose=0, callbacks=[callback]
    ).history["val_robust_accuracy"]
    attack = PGD(Linf(0.1), num_steps=20)
    report = ak.evaluate_robustness(
        model, data, {"PGD-20": attack}, checks=None, verbose=0
    )
    assert history[-1] == report.robust_accuracy["PGD-20"]
    assert len(history) == 3 and history[-1] > history[0] + 0.1


def test_other_callbacks_can_watch_it(batch, tmp_path):
    path = tmp_path / "best.keras"
    model = small_model()
    model.fit(
        *batch,
        epochs=2,
        verbose=0,
        callbacks=[
            RobustAccuracy(batch, PGD(Linf(0.05), num_steps=2)),
            keras.callbacks.ModelCheckpoint(
                path,
                monitor="val_robust_accuracy",
                mode="max",
                save_best_only=True,
            ),
            keras.callbacks.EarlyStopping("val_robust_accuracy", mode="max"),
        ],
    )
    assert isinstance(keras.models.load_model(path), ak.ATENTModel)


def test_bad_arguments(batch):
    with pytest.raises(TypeError, match="`data` must be iterable once per epo"):
        RobustAccuracy(batch for _ in range(3))
    with pytest.raises(TypeError, match="Received: a zip"):
        RobustAccuracy(zip(*batch))
    with pytest.raises(ValueError, match="`batch_size` must .*batch_size=0"):
        RobustAccuracy(batch, batch_size=0)
    with pytest.raises(TypeError, match="`attack` must be .* Received"):
        RobustAccuracy(batch, attack="PGD")
    plain = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    plain.compile("sgd", "mse")
    with pytest.raises(ValueError, match="`attack` must be given"):
        plain.fit(batch[0], verbose=0, callbacks=[RobustAccuracy(batch)])


def test_what_cannot_be_attacked_is_refused_before_the_first_epoch(batch):
    x, y = batch
    steps = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda step, logs: steps.append(step)
    )
    regression = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    regression.compile("sgd", "mse")
    attack = PGD(Linf(0.1), num_steps=2)
    for model, data, rule in (
        (small_model(), (x, y / 3), "labels that are whole numbers"),
        (small_model(), (x[:0], y[:0]), "`data` must not be empty"),
        (small_model(), (x[:, :4], y), "expected shape=.* found shape"),
        (regression, (x, y / 3), "must name classes"),
    ):
        callbacks = [RobustAccuracy(data, attack), watch]
        with pytest.raises(ValueError, match=rule):
            model.fit(x, y, verbose=0, callbacks=callbacks)
    assert not steps
