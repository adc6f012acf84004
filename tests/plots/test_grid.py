import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib import colors
from matplotlib import pyplot

from atent_keras import plots
from atent_keras.plots import canvas

# Images of 2 x 2, of which the first pixel decides.
X = np.full((3, 2, 2, 1), 0.5, "float32")
X[:, 0, 0, 0] = [0.9, 0.2, 0.6]
X_ADV = X + np.float32(0.0)
X_ADV[:, 0, 0, 0] = [0.4, 0.3, 0.7]
X_ADV[1, 1, 1, 0] = 0.25
Y = np.array([1, 0, 0])
SCALE = 4.0


def logit(x):
    """The logit of the second class."""
    return SCALE * (x[:, 0, 0, :1] - 0.5)


def two_logits(x):
    return tf.concat([7.0 - logit(x) / 2, 7.0 + logit(x) / 2], axis=-1)


def two_probabilities(x):
    return tf.nn.softmax(two_logits(x))


def compiled(from_logits):
    """A network of a single output, a logit or a probability."""
    inputs = keras.Input((2, 2, 1))
    outputs = keras.layers.Flatten()(inputs)
    layer = keras.layers.Dense(1, activation=None if from_logits else "sigmoid")
    model = keras.Model(inputs, layer(outputs))
    layer.set_weights(
        [np.array([[SCALE], [0], [0], [0]]), np.array([-SCALE / 2])]
    )
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=from_logits))
    return model


def panels(figure):
    """The axes of the images, a row each of three."""
    axes = [axis for axis in figure.axes if axis.images]
    return np.array(axes).reshape(3, -1)


def picture(axis):
    return np.asarray(axis.images[0].get_array())


def confidence(value):
    """In percent, of the likelier class."""
    share = 1 / (1 + np.exp(-SCALE * (value - 0.5)))
    return f"{100 * max(share, 1 - share):.0f} %"


@pytest.mark.parametrize(
    "model",
    [
        two_logits,
        two_probabilities,
        logit,
        compiled(from_logits=True),
        compiled(from_logits=False),
    ],
    ids=["logits", "probabilities", "callable", "logit", "probability"],
)
def test_answers_and_confidences(model):
    figure = plots.adversarial_images(model, X, X_ADV, Y)
    clean, adversarial, difference = panels(figure)
    assert [axis.get_title() for axis in clean] == [
        f"1\n{confidence(0.9)}",
        f"0\n{confidence(0.2)}",
        f"1\nwrong, {confidence(0.6)}",
    ]
    assert [axis.get_title() for axis in adversarial] == [
        f"0\nwrong, {confidence(0.4)}",
        f"0\n{confidence(0.3)}",
        f"1\nwrong, {confidence(0.7)}",
    ]
    found = [axis.get_xlabel() for axis in difference]
    assert found == ["truth: 1", "truth: 0", "truth: 0"]


def test_wrong_answers_have_a_colour_and_a_frame():
    axes = panels(plots.adversarial_images(two_logits, X, X_ADV, Y))
    wrong = [[False, False, True], [True, False, True], [False] * 3]
    for axis, is_wrong in zip(axes.flat, np.ravel(wrong)):
        for spine in axis.spines.values():
            framed = spine.get_linewidth() > 2
            assert framed == is_wrong
            assert is_wrong == (
                spine.get_edgecolor() == colors.to_rgba(canvas.VERMILLION)
            )
        assert is_wrong == (axis.title.get_color() == canvas.VERMILLION)


def test_gray_images_and_their_change():
    figure = plots.adversarial_images(two_logits, X, X_ADV, Y)
    axes = panels(figure)
    for row, expected in zip(axes, (X, X_ADV, X_ADV - X)):
        for axis, image in zip(row, expected):
            np.testing.assert_allclose(picture(axis), image[..., 0], atol=1e-7)
    for axis in axes[:2].flat:
        assert axis.images[0].get_clim() == (0, 1)
    # The largest change of all, for all.
    for axis in axes[2]:
        low, high = axis.images[0].get_clim()
        assert -low == high == pytest.approx(0.5)
    assert [axis.get_ylabel() for axis in axes[:, 0]] == [
        "clean",
        "adversarial",
        "difference",
    ]
    (bar,) = axes[2, -1].child_axes
    assert bar.get_ylabel() == "change of a pixel"
    np.testing.assert_allclose(bar.get_ylim(), [-0.5, 0.5], atol=1e-6)


def test_images_without_a_channel():
    def network(x):
        return two_logits(x[..., None])

    figure = plots.adversarial_images(network, X[..., 0], X_ADV[..., 0], Y)
    for row, expected in zip(panels(figure), (X, X_ADV, X_ADV - X)):
        for axis, image in zip(row, expected):
            np.testing.assert_allclose(picture(axis), image[..., 0], atol=1e-7)


def test_colour_images_within_other_bounds():
    generator = np.random.default_rng(0)
    x, x_adv = generator.uniform(-1, 1, (2, 4, 5, 6, 3)).astype("float32")
    figure = plots.adversarial_images(
        two_logits, x, x_adv, np.zeros(4, int), bounds=(-1, 1)
    )
    clean, adversarial, difference = panels(figure)
    for row, images in ((clean, x), (adversarial, x_adv)):
        for axis, image in zip(row, images):
            np.testing.assert_allclose(
                picture(axis), (image + 1) / 2, atol=1e-6
            )
    for axis, change in zip(difference, x_adv - x):
        expected = np.where(
            np.max(change, -1) > -np.min(change, -1),
            np.max(change, -1),
            np.min(change, -1),
        )
        np.testing.assert_allclose(picture(axis), expected, atol=1e-6)


def test_images_without_bounds_are_drawn_in_the_range_they_have():
    x = np.linspace(-4, 3, 60, dtype="float32").reshape(2, 6, 5, 1)
    x_adv = x + np.float32(1)
    figure = plots.adversarial_images(
        two_logits, x, x_adv, np.zeros(2, int), bounds=None
    )
    for row, images in zip(panels(figure), (x, x_adv)):
        for axis, image in zip(row, images):
            expected = (image[..., 0] + 4) / 8
            np.testing.assert_allclose(picture(axis), expected, atol=1e-6)


def test_names_of_classes_and_one_hot_labels():
    figure = plots.adversarial_images(
        two_logits, X, X_ADV, np.eye(2)[Y], class_names=("cat", "dog")
    )
    clean, _, difference = panels(figure)
    assert clean[0].get_title().startswith("dog\n")
    assert difference[1].get_xlabel() == "truth: cat"


@pytest.mark.parametrize("size", [(2, 2), (2, 6), (6, 2)])
@pytest.mark.parametrize("count", [1, 3])
def test_nothing_touches_or_is_cut_off(size, count):
    x = np.zeros((count, *size, 1), "float32")
    names = ["a name of this length", "and another as long"]
    figure = plots.adversarial_images(
        two_logits, x, x + np.float32(0.1), Y[:count], class_names=names
    )
    figure.draw_without_rendering()
    rows = panels(figure)
    for row in rows:
        boxes = [axis.get_tightbbox() for axis in row]
        for left, right in zip(boxes, boxes[1:]):
            assert left.x1 < right.x0
    for above, below in zip(rows, rows[1:]):
        bottom = min(axis.get_tightbbox().y0 for axis in above)
        assert bottom > max(axis.get_tightbbox().y1 for axis in below)
    for axis in figure.axes:
        box = axis.get_tightbbox()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
        assert box.y0 >= 0 and box.y1 <= figure.bbox.y1
    # Columns are columns, and pixels are squares.
    lefts = [[axis.bbox.x0 for axis in row] for row in rows]
    np.testing.assert_allclose(np.ptp(lefts, axis=0), 0, atol=0.5)
    assert {axis.get_aspect() for axis in rows.flat} == {1.0}


def test_runs_in_inference_mode():
    inputs = keras.Input((2, 2, 1))
    x = keras.layers.Flatten()(inputs)
    x = keras.layers.Dense(3)(x)
    model = keras.Model(inputs, keras.layers.Dropout(0.99)(x))
    figure = plots.adversarial_images(model, X, X, Y)
    shares = tf.nn.softmax(model(X, training=False)).numpy()
    for axis, share in zip(panels(figure)[0], shares):
        assert axis.get_title().endswith(f"{100 * share.max():.0f} %")
        assert axis.get_title().startswith(f"{share.argmax()}\n")


def test_images_that_nothing_changed():
    (change, *_) = panels(plots.adversarial_images(two_logits, X, X, Y))[2]
    assert not picture(change).any()
    low, high = change.images[0].get_clim()
    assert low < 0 < high


def test_a_single_image():
    figure = plots.adversarial_images(two_logits, X[:1], X_ADV[:1], Y[:1])
    assert panels(figure).shape == (3, 1)


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"x_adv": X[:2]}, ValueError, r"the same shape.*\(3, .*\(2, "),
        ({"x": X * 255, "x_adv": X}, ValueError, "must lie within"),
        ({"x_adv": X * 2}, ValueError, "must lie within"),
        ({"bounds": (0, 0.5)}, ValueError, "must lie within"),
        ({"bounds": (1, 0)}, ValueError, "`bounds` must be two .* increasing"),
        ({"x": (X * 9).astype(int)}, TypeError, "floating-point"),
        ({"x": X[:, 0, 0], "x_adv": X[:, 0, 0]}, ValueError, "1 or 3 channels"),
        (
            {"x": X.repeat(2, -1), "x_adv": X.repeat(2, -1)},
            ValueError,
            r"1 or 3 channels.*Received: shape \(3, 2, 2, 2\)",
        ),
        (
            {"x": X.repeat(7, 0), "x_adv": X.repeat(7, 0), "y": Y.repeat(7)},
            ValueError,
            r"at most 20. Received: shape \(21, ",
        ),
        ({"y": Y[:2]}, ValueError, "Labels must have shape"),
        ({"y": Y + 1}, ValueError, r"lie in 0..1. Received: .* from 1 to 2"),
        ({"y": Y - 1}, ValueError, r"lie in 0..1. Received: .* from -1 to 0"),
        ({"y": np.eye(3)[Y]}, ValueError, r"\(batch, 2\). Received: .*3\)"),
        ({"class_names": ["cat"]}, ValueError, "must be 2 strings"),
        ({"class_names": "01"[:1]}, ValueError, "must be 2 strings"),
        ({"class_names": [0, 1]}, ValueError, r"Received: class_names=\[0, 1"),
        ({"model": "model.keras"}, TypeError, "or a callable"),
        ({"model": lambda x: x}, ValueError, r"shape \(batch, classes\)"),
        (
            {"model": lambda x: two_logits(x) / 0.0},
            ValueError,
            "outputs must be finite",
        ),
    ],
)
def test_refuses(changes, error, message):
    arguments = {"model": two_logits, "x": X, "x_adv": X_ADV, "y": Y}
    with pytest.raises(error, match=message):
        plots.adversarial_images(**{**arguments, **changes})
    assert not pyplot.get_fignums()


def test_refuses_a_probability_where_the_loss_expects_a_logit():
    model = compiled(from_logits=False)
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="expects logits"):
        plots.adversarial_images(model, X, X_ADV, Y)
