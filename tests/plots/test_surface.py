import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib import contour
from matplotlib import pyplot
from matplotlib.axes import Axes

from atent_keras import base_losses
from atent_keras import plots
from atent_keras.plots import surface
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import assert_repeats
from conftest import cross_entropy
from conftest import small_network

EPSILON, SIZE = 0.1, 9
WEIGHTS = np.linspace(-1.2, 2.0, 9).astype("float32")
X = np.random.default_rng(0).uniform(0.3, 0.7, (1, 3, 3, 1)).astype("float32")
Y = np.array([1])
NORMS = pytest.mark.parametrize("norm", [Linf, L2])
TICKS = np.linspace(-1.75, 1.75, SIZE)


def logit(x):
    """Of the second class, small and positive at `X`."""
    center = float(np.sum(X.ravel() * WEIGHTS)) - 0.1
    flat = tf.reshape(x, [-1, 9])
    return tf.linalg.matvec(flat, tf.constant(WEIGHTS))[:, None] - center


def logits(x):
    return tf.concat([tf.zeros_like(logit(x)), logit(x)], axis=-1)


def expected_logits(ascent, other, bounds=(0, 1), x=X, epsilon=EPSILON):
    """Along the grid, a row for each step along the random direction."""
    found = np.zeros((SIZE, SIZE))
    for row, b in enumerate(TICKS):
        for column, a in enumerate(TICKS):
            point = np.clip(x + epsilon * (a * ascent + b * other), *bounds)
            found[row, column] = logit(point.astype("float32"))[0, 0]
    return found


def direction(norm, seed=0, network=logits, x=X, y=Y):
    y = tf.constant(y)
    loss = base_losses.of_model(network, y)
    x, threat_model = tf.constant(x), norm(EPSILON)
    return [
        one.numpy()
        for one in surface.directions(network, loss, x, y, threat_model, seed)
    ]


@pytest.fixture
def drawn(monkeypatch):
    """The arrays that contours are drawn from, in the order of the calls."""
    calls, real = [], Axes.contourf

    def record(self, *arguments, **settings):
        calls.append((arguments, settings))
        return real(self, *arguments, **settings)

    monkeypatch.setattr(Axes, "contourf", record)
    return calls


def losses(drawn):
    return drawn[0][0][2]


def draw(norm=Linf, model=logits, x=X, y=Y, **settings):
    settings = {"threat_model": norm(EPSILON), "resolution": SIZE, **settings}
    return plots.loss_surface(model, x, y, **settings)


@NORMS
def test_the_loss_of_a_linear_network(norm, drawn):
    draw(norm)
    expected = np.logaddexp(0, -expected_logits(*direction(norm)))
    np.testing.assert_allclose(losses(drawn), expected, rtol=1e-5)
    across, along = drawn[0][0][:2]
    np.testing.assert_allclose(across, TICKS)
    np.testing.assert_allclose(along, TICKS)
    # To the right is up, by what the norm's dual says.
    dual = {Linf: np.abs(WEIGHTS).sum(), L2: np.linalg.norm(WEIGHTS)}[norm]
    middle = -np.log(np.expm1(losses(drawn)[SIZE // 2]))
    np.testing.assert_allclose(
        middle, 0.1 - EPSILON * dual * TICKS, rtol=1e-3, atol=1e-4
    )


def test_stays_in_the_box(drawn):
    x = np.where(np.arange(9).reshape(X.shape) % 2, 0.95, 0.05)
    x = x.astype("float32")
    draw(L2, x=x, threat_model=L2(1.0))
    directions = direction(L2, x=x)
    free = expected_logits(*directions, (-9, 9), x, epsilon=1.0)
    clipped = expected_logits(*directions, (0, 1), x, epsilon=1.0)
    assert np.max(np.abs(free - clipped)) > 0.5
    expected = np.logaddexp(0, -clipped)
    np.testing.assert_allclose(losses(drawn), expected, rtol=1e-4)


@NORMS
@pytest.mark.parametrize("seed", range(5))
def test_directions(norm, seed):
    ascent, other = direction(norm, seed)
    sign = -WEIGHTS.reshape(X.shape)
    if norm is L2:
        np.testing.assert_allclose(
            ascent, sign / np.linalg.norm(WEIGHTS), rtol=1e-5
        )
        assert abs(np.sum(ascent * other)) < 1e-6
        assert np.linalg.norm(other) == pytest.approx(1, rel=1e-5)
    else:
        np.testing.assert_array_equal(ascent, np.sign(sign))
        np.testing.assert_array_equal(np.abs(other), 1)
        # No plane could be drawn along one direction.
        assert not np.array_equal(np.abs(ascent + other), np.full_like(X, 2))


def test_random_signs_are_fair():
    x = np.full((1, 40, 50, 1), 0.5, "float32")

    def network(x):
        return tf.concat([0 * x[:, 0, 0], x[:, 0, 0]], axis=-1)

    _, other = direction(Linf, network=network, x=x)
    # Four standard errors of 2,000 fair coins.
    assert abs(other.mean()) < 4 / np.sqrt(2000)


@NORMS
def test_the_seed_decides(norm, drawn):
    def bent(x):
        """As `logits`, and curved across its gradient."""
        squares = tf.reduce_sum(tf.reshape(x - X, [-1, 9]) ** 2, axis=1)
        return logits(x) + tf.stack([0 * squares, 5 * squares], axis=-1)

    for seed in (0, 0, 1):
        draw(norm, model=bent, seed=seed)
    first, again, _ = (
        arguments[2] for arguments, settings in drawn if "cmap" in settings
    )
    assert_repeats(again, first)
    assert_repeats(direction(norm, 0), direction(norm, 0))
    (one, random), (other, another) = direction(norm, 0), direction(norm, 1)
    assert_repeats(other, one)
    assert np.max(np.abs(random - another)) > 0.1


@NORMS
def test_the_outline_of_the_ball(norm):
    figure = draw(norm)
    (line,) = [
        line for line in figure.axes[0].lines if line.get_label() == "ball"
    ]
    ascent, other = direction(norm)
    steps = [a * ascent + b * other for a, b in line.get_xydata()]
    lengths = norm(1.0).norm(tf.concat(steps, axis=0)).numpy()
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)
    corner = {Linf: 0.5, L2: np.sqrt(0.5)}[norm]
    nearest = np.min(np.abs(line.get_xydata() - corner).max(axis=1))
    assert nearest < 1e-5


def test_errors_are_hatched(drawn):
    figure = draw()
    (_, _, margins, levels), settings = drawn[1]
    expected = expected_logits(*direction(Linf))
    np.testing.assert_allclose(margins, expected, atol=1e-5)
    assert levels[1] == 0 and levels[0] < margins.min()
    assert settings["hatches"]
    (edge,) = [
        found
        for found in figure.axes[0].collections
        if isinstance(found, contour.ContourSet) and not found.filled
    ]
    np.testing.assert_array_equal(edge.levels, [0])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "misclassified" in names


@pytest.mark.parametrize("y, hatched", [(1, False), (0, True)])
def test_where_all_or_nothing_is_wrong(y, hatched, drawn):
    draw(threat_model=Linf(1e-4), y=np.array([y]))
    assert len(drawn) == 1 + hatched


def test_marks_the_clean_image_and_says_its_units():
    axis, bar = draw(L2).axes
    (mark,) = [line for line in axis.lines if line.get_label() == "clean image"]
    np.testing.assert_array_equal(mark.get_xydata(), [[0, 0]])
    for label in (axis.get_xlabel(), axis.get_ylabel()):
        assert r"in units of $\epsilon$ = 0.1" in label
    assert "loss" in bar.get_ylabel()
    assert axis.get_xlim() == (-1.75, 1.75)


def test_nothing_touches_or_is_cut_off():
    figure = draw(threat_model=Linf(0.123))
    figure.draw_without_rendering()
    axis, bar = (axis.get_tightbbox() for axis in figure.axes)
    legend = figure.legends[0].get_window_extent()
    assert axis.x1 < bar.x0 and legend.y1 <= axis.y0
    for box in (axis, bar, legend):
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
        assert box.y0 >= 0 and box.y1 <= figure.bbox.y1


def single(from_logits):
    inputs = keras.Input((3, 3, 1))
    layer = keras.layers.Dense(1, activation=None if from_logits else "sigmoid")
    model = keras.Model(inputs, layer(keras.layers.Flatten()(inputs)))
    layer.set_weights(
        [WEIGHTS[:, None], logit(np.zeros_like(X)).numpy().ravel()]
    )
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=from_logits))
    return model


@pytest.mark.parametrize("from_logits", [True, False])
def test_a_single_output(from_logits, drawn):
    draw(model=single(from_logits))
    expected = expected_logits(*direction(Linf))
    np.testing.assert_allclose(
        losses(drawn), np.logaddexp(0, -expected), rtol=1e-3
    )
    margins = drawn[1][0][2]
    np.testing.assert_array_equal(margins > 0, expected > 0)


def test_one_hot_labels_and_another_loss(drawn):
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=0.2
    )
    draw(y=np.eye(2)[Y], loss=loss)
    values = expected_logits(*direction(Linf))
    expected = 0.9 * np.logaddexp(0, -values) + 0.1 * np.logaddexp(0, values)
    np.testing.assert_allclose(losses(drawn), expected, rtol=1e-4)


def test_a_network_in_inference_mode(digits, drawn):
    x, y = digits[0][:1], digits[1][:1]
    network = small_network(dropout=0.9, batch_norm=True)
    network.compile(loss=cross_entropy())
    draw(model=network, x=x, y=y)
    clean = cross_entropy()(y, network(x, training=False))
    assert losses(drawn)[SIZE // 2, SIZE // 2] == pytest.approx(
        float(clean), rel=1e-4
    )


@pytest.mark.parametrize(
    "changes, error, message",
    [
        (
            {"x": X.repeat(2, 0), "y": Y.repeat(2)},
            ValueError,
            r"a single image, .* Received: shape \(2, 3, 3, 1\)",
        ),
        ({"x": X[:, :1, :1]}, ValueError, "with two pixels or more"),
        ({"x": 2 * X}, ValueError, "must lie within"),
        ({"x": X.astype(int)}, TypeError, "floating-point"),
        ({"y": Y.repeat(2)}, ValueError, "Labels must have shape"),
        ({"y": Y + 1}, ValueError, "Labels must lie in 0..1"),
        ({"model": lambda x: x}, ValueError, r"shape \(batch, classes\)"),
        (
            {"model": lambda x: tf.nn.softmax(logits(x))},
            ValueError,
            "expects logits",
        ),
        (
            {"model": lambda x: 0 * logits(x)},
            ValueError,
            "finite gradient other than zero.* at most 0.0",
        ),
        (
            {"model": lambda x: tf.stop_gradient(logits(x))},
            ValueError,
            "without a gradient by its input",
        ),
        (
            {"model": lambda x: logits(x) / tf.cast(x[:, 0, 0] < 0.9, x.dtype)},
            ValueError,
            "outputs must be finite",
        ),
        ({"loss": "no_loss"}, ValueError, "`loss` must"),
        ({"threat_model": 0.1}, TypeError, "Received: threat_model=0.1"),
        ({"threat_model": Linf(0.0)}, TypeError, "with a positive radius"),
        ({"seed": "zero"}, TypeError, "`seed` must be"),
        ({"extent": 0}, ValueError, "`extent` must be .* Received: extent=0"),
        ({"resolution": 2}, ValueError, "at least 3 .*Received: resolution=2"),
    ],
)
def test_refuses(changes, error, message):
    with pytest.raises(error, match=message):
        draw(**changes)
    assert not pyplot.get_fignums()
