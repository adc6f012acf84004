import keras
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf

NORMS = [Linf, L2]
SHAPE = (64, 5, 4, 3)


def numpy_norm(norm, x):
    flat = np.asarray(x).reshape(len(x), -1)
    return (
        np.abs(flat).max(axis=1)
        if norm is Linf
        else np.sqrt((flat**2).sum(axis=1))
    )


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(size=SHAPE).astype("float32")


@pytest.fixture
def x():
    return np.random.default_rng(1).uniform(size=SHAPE).astype("float32")


@pytest.mark.parametrize("norm", NORMS)
def test_norm(norm, noise):
    actual = norm(1.0).norm(tf.constant(noise))
    np.testing.assert_allclose(actual, numpy_norm(norm, noise), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_l2_norm_neither_underflows_nor_overflows(scale, noise):
    norms = L2(1.0).norm(tf.constant(noise * np.float32(scale)))
    expected = numpy_norm(L2, noise.astype("float64")) * scale
    np.testing.assert_allclose(norms, expected, rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_project_leaves_the_inside_alone(norm, x, noise):
    threat_model = norm(0.5)
    inside = 0.4 * noise / numpy_norm(norm, noise)[:, None, None, None]
    projected = threat_model.project(tf.constant(x), tf.constant(x + inside))
    np.testing.assert_allclose(projected, x + inside, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_project_takes_the_outside_to_the_boundary_once(norm, x, noise):
    threat_model = norm(0.5)
    projected = threat_model.project(tf.constant(x), tf.constant(x + 9 * noise))
    norms = numpy_norm(norm, projected - x)
    np.testing.assert_allclose(norms, 0.5, rtol=1e-6)
    again = threat_model.project(tf.constant(x), projected)
    np.testing.assert_allclose(again, projected, atol=1e-6)


def test_l2_projection_is_along_the_perturbation(x, noise):
    projected = L2(0.5).project(tf.constant(x), tf.constant(x + noise))
    scaled = noise * 0.5 / numpy_norm(L2, noise)[:, None, None, None]
    np.testing.assert_allclose(projected - x, scaled, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_clip_keeps_the_box(norm, x, noise):
    clipped = norm(1.0, bounds=(0.25, 0.5)).clip(tf.constant(x + noise))
    np.testing.assert_array_equal(clipped, np.clip(x + noise, 0.25, 0.5))


@pytest.mark.parametrize("norm", NORMS)
def test_ascent_direction_attains_the_dual_norm(norm, noise):
    direction = norm(1.0).ascent_direction(tf.constant(noise))
    np.testing.assert_allclose(numpy_norm(norm, direction), 1.0, rtol=1e-6)
    flat = noise.reshape(len(noise), -1)
    dual = {Linf: np.abs(flat).sum(axis=1), L2: numpy_norm(L2, noise)}[norm]
    rise = (np.asarray(direction) * noise).reshape(len(noise), -1).sum(axis=1)
    np.testing.assert_allclose(rise, dual, rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_zero_gradient_has_zero_direction(norm):
    direction = norm(1.0).ascent_direction(tf.zeros(SHAPE))
    np.testing.assert_array_equal(direction, np.zeros(SHAPE))


@pytest.mark.parametrize("norm", NORMS)
def test_zero_epsilon_leaves_only_the_clean_image(norm, x, noise):
    threat_model = norm(0)
    for x_adv in (x, x + noise):
        projected = threat_model.project(tf.constant(x), tf.constant(x_adv))
        np.testing.assert_array_equal(projected, x)
    start = threat_model.random_start(tf.constant(x), tf.constant(noise))
    np.testing.assert_array_equal(start, x)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dimensions", [2, 3, 192])
def test_random_start_is_uniform_in_the_ball(norm, dimensions):
    count = 20_000
    noise = np.random.default_rng(0).normal(size=(count, dimensions))
    start = norm(0.3).random_start(tf.zeros_like(noise), tf.constant(noise))
    radii = numpy_norm(norm, start) / 0.3
    assert radii.max() <= 1 + 1e-9
    # In a uniform ball, the d-th power of the radius is uniform in [0, 1].
    ranks = np.sort(radii**dimensions)
    distance = np.abs(ranks - np.arange(count) / count).max()
    assert distance < 1.95 / np.sqrt(count)  # Kolmogorov-Smirnov, p = 0.001
    standard_error = np.asarray(start).std() / np.sqrt(count)
    assert np.abs(np.mean(start, axis=0)).max() < 4.5 * standard_error


@pytest.mark.parametrize("norm", NORMS)
def test_serialization_and_repr(norm):
    threat_model = norm(8 / 255, bounds=(-1, 1))
    config = keras.saving.serialize_keras_object(threat_model)
    again = keras.saving.deserialize_keras_object(config)
    assert again == threat_model
    assert repr(again) == (
        f"{norm.__name__}(epsilon={8 / 255}, bounds=(-1.0, 1.0))"
    )


def test_settings_are_read_only():
    with pytest.raises(AttributeError, match="epsilon"):
        Linf(0.1).epsilon = 0.2


@pytest.mark.parametrize("norm", NORMS)
def test_the_largest_radius_and_box_are_computed_with(norm):
    """Of 1e18, float32 has the square, and the sum of many."""
    model = norm(1e18, (-1e18, 1e18))
    x = tf.constant([[0.0, 0.5, 1.0], [-1e18, 0.0, 1e18]])
    far = tf.constant([[3e18, -3e18, 0.0], [0.0, 0.0, 1e-6]])
    found = [
        model.clip(model.project(x, x + far)),
        model.random_start(x, tf.constant([[1.0, -2.0, 0.5]] * 2)),
        model.norm(far),
        model.ascent_direction(far),
    ]
    assert all(np.isfinite(one).all() for one in found)
    lengths = model.norm(model.project(x, x + far) - x)
    np.testing.assert_array_less(lengths, 1.000001e18)


@pytest.mark.parametrize(
    "epsilon",
    [-0.1, np.nan, np.inf, "8/255", None, True, 1e300, 1.01e18, 10**400],
    ids=lambda epsilon: str(epsilon)[:10],
)
def test_epsilon_must_be_finite_and_not_negative(epsilon):
    with pytest.raises(ValueError, match="`epsilon` must be .* Received"):
        Linf(epsilon)


@pytest.mark.parametrize("norm", NORMS)
def test_without_bounds_there_is_the_ball_alone(norm, noise):
    threat_model = norm(0.5, bounds=None)
    assert threat_model.width == 1.0
    far = 1e6 * tf.constant(noise)
    np.testing.assert_array_equal(threat_model.clip(far), far)
    config = keras.saving.serialize_keras_object(threat_model)
    again = keras.saving.deserialize_keras_object(config)
    assert again == threat_model
    assert repr(again) == f"{norm.__name__}(epsilon=0.5, bounds=None)"


@pytest.mark.parametrize("norm", NORMS)
def test_reach_without_bounds_is_the_dual_norms_closed_form(norm, noise):
    x = 100 * noise.reshape(len(noise), -1).astype("float64")
    normal = np.random.default_rng(1).normal(size=x.shape)
    normal[:, ::3] = 0
    rise = np.random.default_rng(2).normal(size=len(x))
    threat_model = norm(1.0, bounds=None)
    step = threat_model.reach(*map(tf.constant, (x, normal, rise)))
    np.testing.assert_allclose((step * normal).numpy().sum(axis=1), rise)
    dual = np.linalg.norm(normal, {Linf: 1, L2: 2}[norm], axis=1)
    np.testing.assert_allclose(threat_model.norm(step), np.abs(rise) / dual)


@pytest.mark.parametrize(
    "bounds",
    [
        *[(1, 0), (0, 0), (0,), (0, np.inf), 1, ()],
        *[(0, 1e300), (0, 10**400), (-(10**400), 0)],
    ],
    ids=lambda bounds: str(bounds)[:10],
)
def test_bounds_must_increase(bounds):
    with pytest.raises(ValueError, match="`bounds` must be .* Received"):
        L2(0.1, bounds=bounds)


def smallest_in_l2(x, normal, rise):
    found = scipy.optimize.minimize(
        lambda p: p @ p,
        np.zeros_like(x),
        jac=lambda p: 2 * p,
        bounds=list(zip(-x, 1 - x)),
        constraints={"type": "eq", "fun": lambda p: normal @ p - rise},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert abs(normal @ found.x - rise) < 1e-6
    return np.sqrt(found.fun)


def smallest_in_linf(x, normal, rise):
    # Variables: the perturbation, and its largest entry, which is minimized.
    size = len(x)
    above = np.hstack([np.eye(size), -np.ones((size, 1))])
    below = np.hstack([-np.eye(size), -np.ones((size, 1))])
    found = scipy.optimize.linprog(
        np.eye(size + 1)[-1],
        A_ub=np.vstack([above, below]),
        b_ub=np.zeros(2 * size),
        A_eq=[[*normal, 0]],
        b_eq=[rise],
        bounds=[*zip(-x, 1 - x), (0, None)],
    )
    assert found.success
    return found.fun


@pytest.mark.parametrize(
    "norm, smallest", [(Linf, smallest_in_linf), (L2, smallest_in_l2)]
)
def test_reach_is_the_smallest_perturbation_in_the_box(norm, smallest):
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(40, 7)).round(1)  # some pixels on the bounds
    x[:, 0] = 0
    normal = rng.normal(size=x.shape)
    normal[:, 1] = 0
    # Most of what the box allows, up or down: many pixels meet their bound.
    up = np.where(normal > 0, 1 - x, -x)
    down = np.where(normal > 0, -x, 1 - x)
    way = np.where(np.arange(40)[:, None] % 2, up, down)
    rise = (normal * way).sum(axis=1) * rng.uniform(0.1, 0.95, 40)
    threat_model = norm(1.0)
    p = threat_model.reach(*map(tf.constant, (x, normal, rise)))
    lengths, p = threat_model.norm(p), p.numpy()
    np.testing.assert_allclose((normal * p).sum(axis=1), rise, rtol=1e-9)
    assert np.all((x + p >= -1e-12) & (x + p <= 1 + 1e-12))
    expected = [smallest(*row) for row in zip(x, normal, rise)]
    np.testing.assert_allclose(lengths, expected, rtol=1e-5)


@pytest.mark.parametrize("norm", [Linf, L2])
def test_reach_at_its_limits(norm):
    x = tf.constant([[0.2, 0.5], [0.2, 0.5], [0.2, 0.5]])
    normal = tf.constant([[1.0, -1.0], [1.0, -1.0], [0.0, 0.0]])
    p = norm(1.0).reach(x, normal, tf.constant([0.0, 9.0, 1.0]))
    # Nowhere to go; as far as the box goes; no way to go.
    np.testing.assert_allclose(p, [[0, 0], [0.8, -0.5], [0, 0]], atol=1e-6)
