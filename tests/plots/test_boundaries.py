import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib import contour
from matplotlib import pyplot

from atent_keras import plots
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf

# A straight boundary, 0.8 x + 0.4 y = 0.55.
NORMAL, OFFSET = np.array([0.8, 0.4], "float32"), 0.55
X = np.array([[0.1, 0.2], [0.9, 0.8], [0.3, 0.4], [0.6, 0.7]], "float32")
Y = np.array([0, 1, 0, 1])


def lead(x):
    return tf.linalg.matvec(x, NORMAL)[:, None] - OFFSET


def logits(x):
    return 3 * tf.concat([-lead(x), lead(x)], axis=-1)


def single(from_logits):
    """The same boundary by a single output."""
    inputs = keras.Input((2,))
    layer = keras.layers.Dense(1, activation=None if from_logits else "sigmoid")
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([NORMAL[:, None], np.array([-OFFSET])])
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=from_logits))
    return model


def draw(models, x, y, **settings):
    return plots.decision_boundaries(
        models, x, y, **{"resolution": 50, **settings}
    )


def contours(axis, filled):
    return [
        found
        for found in axis.collections
        if isinstance(found, contour.ContourSet) and found.filled == filled
    ]


def boundary(axis):
    (found,) = contours(axis, filled=False)
    return np.concatenate([path.vertices for path in found.get_paths()])


def regions(axis, point):
    """Which of the two regions, 0 and 1, hold a point."""
    (found,) = contours(axis, filled=True)
    return [
        index
        for index, path in enumerate(found.get_paths())
        if path.contains_point(point)
    ]


def balls(axis):
    """The outlines of the balls, `(n, corners, 2)`."""
    (line,) = [line for line in axis.lines if "ball" in line.get_label()]
    ends = np.flatnonzero(np.isnan(line.get_xdata()))
    points = line.get_xydata()
    return np.stack(np.split(points, ends + 1)[:-1])[:, :-1]


@pytest.mark.parametrize(
    "model",
    [
        logits,
        lambda x: tf.nn.softmax(logits(x)),
        lead,
        single(from_logits=True),
        single(from_logits=False),
    ],
    ids=["logits", "probabilities", "callable", "logit", "probability"],
)
def test_the_boundary_of_a_linear_network(model):
    figure = draw({"one": model}, X, Y, threat_model=Linf(0.05))
    (axis,) = figure.axes
    found = boundary(axis)
    np.testing.assert_allclose(found @ NORMAL, OFFSET, atol=1e-4)
    # From one side of the picture to the other.
    assert np.ptp(found[:, 1]) > 0.7
    for point in ((0.2, 0.3), (0.5, 0.3), (0.6, 0.3), (0.8, 0.7)):
        side = int(np.dot(point, NORMAL) > OFFSET)
        assert regions(axis, point) == [side]


def test_points_by_class():
    figure = draw({"one": logits}, X, np.eye(2)[Y])
    (axis,) = figure.axes
    zero, one = (
        [found for found in axis.collections if found.get_label() == name]
        for name in ("class 0", "class 1")
    )
    np.testing.assert_array_equal(zero[0].get_offsets(), X[Y == 0])
    np.testing.assert_array_equal(one[0].get_offsets(), X[Y == 1])
    shapes = {len(found[0].get_paths()[0].vertices) for found in (zero, one)}
    assert len(shapes) == 2


def test_balls_of_l2():
    figure = draw({"one": logits}, X, Y, threat_model=L2(0.07))
    found = balls(figure.axes[0])
    lengths = np.linalg.norm(found - X[:, None], axis=-1)
    np.testing.assert_allclose(lengths, 0.07, rtol=1e-4)
    np.testing.assert_allclose(found.max(1) - X, 0.07, rtol=1e-2)


def test_balls_of_linf():
    figure = draw({"one": logits}, X, Y, threat_model=Linf(0.07))
    found = np.abs(balls(figure.axes[0]) - X[:, None])
    np.testing.assert_allclose(found.max(-1), 0.07, rtol=1e-4)
    # Its corners, too.
    np.testing.assert_allclose(found.min(-1).max(-1), 0.07, rtol=1e-4)


def test_no_balls_without_a_threat_model():
    figure = draw({"one": logits}, X, Y)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["boundary", "class 0", "class 1"]
    # Nothing bounds the plane.
    assert figure.axes[0].get_xlim()[0] < X.min()


def test_keeps_the_bounds():
    asked = []

    def network(x):
        asked.append(np.array(x) if tf.executing_eagerly() else x)
        tf.debugging.assert_less_equal(x, 1.0)
        tf.debugging.assert_non_negative(x)
        return logits(x)

    figure = draw({"one": network}, X, Y, threat_model=Linf(0.3))
    (axis,) = figure.axes
    assert axis.get_xlim() == (0, 1) and axis.get_ylim() == (0, 1)
    assert asked


def test_balls_without_bounds():
    points = 40 * X - 20
    ball = Linf(3.0, bounds=None)
    (axis,) = draw({"one": logits}, points, Y, threat_model=ball).axes
    assert axis.get_xlim()[0] < points[:, 0].min() - 3
    assert axis.get_xlim()[1] > points[:, 0].max() + 3


def test_a_panel_for_each_network():
    networks = {"one": logits, "two": lambda x: -logits(x)}
    figure = draw(networks, X, Y)
    one, two = figure.axes
    assert [axis.get_title() for axis in (one, two)] == ["one", "two"]
    assert regions(one, (0.2, 0.3)) == [0]
    assert regions(two, (0.2, 0.3)) == [1]
    assert one.get_xlim() == two.get_xlim()


@pytest.mark.parametrize("sign, region", [(1.0, 1), (-1.0, 0)])
def test_a_network_that_knows_one_class(sign, region):
    def network(x):
        return sign * tf.concat([0 * x[:, :1], 1 + x[:, :1]], axis=-1)

    figure = draw({"one": network}, X, Y, threat_model=Linf(0.1))
    (axis,) = figure.axes
    assert not contours(axis, filled=False)
    assert regions(axis, (0.5, 0.5)) == [region]


def test_a_network_that_knows_nothing():
    def network(x):
        return tf.zeros_like(x)

    figure = draw({"one": network}, X[:1], Y[:1])
    assert not contours(figure.axes[0], filled=False)


@pytest.mark.parametrize(
    "panels, name, shape",
    [
        (1, "plain", (1, 1)),
        (3, "plain\nand a second line", (1, 1)),
        (3, "plain", (1, 0.2)),
        (1, "plain\nand a second line", (0.2, 1)),
        (2, "a network whose name is long and not broken", (0.2, 1)),
    ],
)
def test_nothing_touches_or_is_cut_off(panels, name, shape):
    networks = {f"{name} {number}": lead for number in range(panels)}
    figure = draw(networks, X * np.float32(shape), Y, threat_model=Linf(0.03))
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    boxes = [axis.get_tightbbox() for axis in figure.axes]
    for box in (legend, *boxes):
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    assert legend.y1 <= min(box.y0 for box in boxes)
    for left, right in zip(boxes, boxes[1:]):
        assert left.x1 < right.x0


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"models": {}}, TypeError, "at least one model. Received: models={}"),
        ({"models": logits}, TypeError, "`models` must be a dictionary"),
        ({"models": {"one": 1}}, TypeError, "`models` must be a dictionary"),
        (
            {"models": {"three": lambda x: tf.repeat(x, 2, axis=1)[:, :3]}},
            ValueError,
            "two classes.*Received: 'three' with 3 outputs",
        ),
        (
            {"models": {"one": lambda x: logits(x) * np.nan}},
            ValueError,
            "outputs must be finite",
        ),
        ({"x": X[:, :1]}, ValueError, r"\(n, 2\). Received: shape \(4, 1\)"),
        ({"x": X[:, None]}, ValueError, r"\(n, 2\). Received: .*\(4, 1, 2\)"),
        ({"x": X.astype(int)}, TypeError, "floating-point"),
        ({"x": X * np.nan}, ValueError, "must hold finite numbers"),
        (
            {"x": 2 * X, "threat_model": Linf(0.1)},
            ValueError,
            "must lie within",
        ),
        ({"y": Y[:2]}, ValueError, "Labels must have shape"),
        ({"y": Y + 1}, ValueError, r"lie in 0..1. Received: .* from 1 to 2"),
        ({"y": np.eye(3)[Y]}, ValueError, r"\(batch, 2\). Received: .*3\)"),
        ({"threat_model": 0.1}, TypeError, "Received: threat_model=0.1"),
        ({"resolution": 1}, ValueError, "at least 2 .*Received: resolution=1"),
        ({"resolution": 9.5}, ValueError, "`resolution` must be an integer"),
    ],
)
def test_refuses(changes, error, message):
    arguments = {"models": {"one": logits}, "x": X, "y": Y}
    with pytest.raises(error, match=message):
        draw(**{**arguments, **changes})
    assert not pyplot.get_fignums()
