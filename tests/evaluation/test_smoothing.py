import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import atent_keras as ak
from atent_keras.evaluation.smoothing import ABSTAIN
from atent_keras.evaluation.smoothing import Certificates
from atent_keras.evaluation.smoothing import SmoothedClassifier
from conftest import small_network

SIGMA = 0.3
WEIGHTS = np.linspace(-2, 2, 16).reshape(4, 4, 1)


def linear(sign=1):
    """Two classes, the second one where `w @ x + b > 0`; b centers it."""
    w = tf.constant(WEIGHTS.ravel(), keras.config.floatx())

    def network(x):
        lead = tf.linalg.matvec(tf.reshape(x - 0.5, [-1, 16]), w)
        return tf.stack([-sign * lead, sign * lead], axis=-1)

    return network


def at(*distances):
    """Images at these signed distances from the linear network's boundary."""
    unit = WEIGHTS / np.linalg.norm(WEIGHTS)
    distances = np.reshape(distances, [-1, 1, 1, 1])
    return (0.5 + distances * unit).astype("float32")


def bound(successes, trials, alpha):
    """Clopper & Pearson's lower bound: the test of a smaller share rejects."""
    return np.nan_to_num(
        stats.beta.ppf(alpha, successes, trials - successes + 1)
    )


def bins(num_classes, scale=SIGMA):
    """Classes of one pixel at 0.9, equally likely under the noise's law."""
    edges = stats.norm.ppf(np.arange(1, num_classes) / num_classes)
    edges = (0.9 + scale * edges).astype("float32")

    def network(x):
        place = tf.searchsorted(edges, x[:, 0])
        return tf.one_hot(place, num_classes)

    return network, np.full((1, 1), 0.9, "float32")


def test_counts_are_those_of_this_sigma():
    distances = np.array([-0.4, -0.1, 0.0, 0.2, 0.3])
    smoothed = SmoothedClassifier(linear(), SIGMA)
    share = smoothed.count(at(*distances), 4000, seed=1)[:, 1] / 4000

    def deviation(sigma):
        expected = stats.norm.cdf(distances / sigma)
        error = np.sqrt(expected * (1 - expected) / 4000)
        return np.max(np.abs(share - expected) / error)

    assert deviation(SIGMA) < 4
    assert deviation(2 / 3 * SIGMA) > 8 and deviation(3 / 2 * SIGMA) > 8


def test_the_noise_is_normal_unclipped_and_new_for_each_sample():
    """A third of the draws lie above 1; repeated batches would stand out."""
    for batch_size in (50, 1000):
        network, x = bins(10)
        smoothed = SmoothedClassifier(network, SIGMA, batch_size=batch_size)
        counts = smoothed.count(x, 5003, seed=2)[0]
        assert counts.sum() == 5003
        assert stats.chisquare(counts).pvalue > 1e-3
    for scale in (2 / 3, 3 / 2):
        network, x = bins(10, scale * SIGMA)
        counts = SmoothedClassifier(network, SIGMA).count(x, 5003, seed=2)[0]
        assert stats.chisquare(counts).pvalue < 1e-9


@pytest.mark.parametrize("num_samples", [1, 99, 1000, 1003, 2500])
def test_as_many_samples_as_asked_for_and_no_more_at_once(num_samples):
    seen, largest = tf.Variable(0), tf.Variable(0)

    def network(x):
        seen.assign_add(tf.shape(x)[0])
        largest.assign(tf.maximum(largest, tf.shape(x)[0]))
        return linear()(x)

    smoothed = SmoothedClassifier(network, SIGMA)
    counts = smoothed.count(at(0.0, 0.1), num_samples)
    assert counts.shape == (2, 2) and counts.dtype == np.int64
    np.testing.assert_array_equal(counts.sum(axis=1), num_samples)
    probes = 3  # with which any network is looked at
    assert seen == 2 * num_samples + probes
    assert largest == max(min(num_samples, 1000), probes)


def test_predict_where_the_answer_is_known():
    smoothed = SmoothedClassifier(linear(), SIGMA)
    found = smoothed.predict(at(-0.3, -0.1, 0.0, 0.1, 0.3), seed=0)
    np.testing.assert_array_equal(found, [0, 0, ABSTAIN, 1, 1])
    assert found.dtype == np.int64


def test_predict_tells_the_two_most_frequent_of_several_classes_apart():
    """The third's count has no say: 45 : 35 : 20 in 1,000 is enough."""
    edges = 0.5 + SIGMA * stats.norm.ppf([0.45, 0.8])

    def network(x):
        place = tf.searchsorted(edges.astype("float32"), x[:, 0])
        return tf.one_hot(place, 3)

    smoothed = SmoothedClassifier(network, SIGMA)
    x = np.full((20, 1), 0.5, "float32")
    counts = smoothed.count(x, seed=0)
    ordered = np.sort(counts, axis=1)
    pvalues = [
        stats.binomtest(most, most + second).pvalue
        for _, second, most in ordered.tolist()
    ]
    found = smoothed.predict(x, alpha=0.01, seed=0)
    expected = np.where(np.array(pvalues) <= 0.01, 0, ABSTAIN)
    np.testing.assert_array_equal(found, expected)
    assert 0 < np.sum(found == ABSTAIN) < 20


@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_predict_at_even_chances_answers_as_rarely_as_promised(alpha):
    n, images = 99, 600
    smoothed = SmoothedClassifier(linear(), SIGMA)
    found = smoothed.predict(at(*[0] * images), n, alpha, seed=0)
    pvalues = [stats.binomtest(k, n).pvalue for k in range(n + 1)]
    share = stats.binom.pmf(range(n + 1), n, 0.5) @ (np.array(pvalues) <= alpha)
    assert share <= alpha
    answered = np.sum(found != ABSTAIN)
    assert 1e-4 < stats.binomtest(int(answered), images, share).pvalue


@pytest.mark.parametrize("seed", [0, 1])
def test_radii_stay_below_the_true_ones_and_come_close(seed):
    """As close as the bound at this many samples comes to the truth."""
    n, alpha = 20_000, 0.001
    distances = np.array([-0.6, -0.3, -0.05, 0.02, 0.1, 0.25, 0.5])
    classes, radii = SmoothedClassifier(linear(), SIGMA).certify(
        at(*distances), n, seed=seed
    )
    np.testing.assert_array_equal(classes, (distances > 0).astype(int))
    assert np.all(radii > 0) and np.all(radii <= np.abs(distances))
    share = stats.norm.cdf(np.abs(distances) / SIGMA)
    lower, upper = (
        SIGMA
        * stats.norm.ppf(bound(stats.binom.ppf(chance, n, share), n, alpha))
        for chance in (1e-4, 1 - 1e-4)
    )
    assert np.all((lower <= radii) & (radii <= upper))
    assert np.all(upper - lower < 0.05)


def test_radii_of_several_classes():
    """Nearest of three centers: no radius passes the nearest boundary."""
    centers = np.array([[0.1, 0.1], [0.9, 0.2], [0.4, 0.9]], "float32")

    def network(x):
        return -tf.reduce_sum((x[:, None] - centers) ** 2, axis=-1)

    x = np.random.default_rng(0).random((40, 2)).astype("float32")
    squares = np.sum((x[:, None] - centers) ** 2, axis=-1)
    nearest = np.argmin(squares, axis=1)
    gap = squares - squares.min(axis=1, keepdims=True)
    apart = np.linalg.norm(centers[nearest][:, None] - centers, axis=-1)
    distance = np.divide(
        gap, 2 * apart, out=np.full_like(gap, np.inf), where=apart > 0
    ).min(axis=1)

    classes, radii = SmoothedClassifier(network, 0.1).certify(x, seed=3)
    certain = classes != ABSTAIN
    assert np.mean(certain) > 0.8
    # A class has no more than its half-plane's share of the probability.
    np.testing.assert_array_equal(classes[certain], nearest[certain])
    assert np.all(radii <= distance)
    assert np.all(radii[distance > 0.15] > 0.1)


def test_as_large_a_radius_as_the_samples_allow():
    certificates = SmoothedClassifier(linear(), 0.01).certify(at(0.9), 500)
    assert isinstance(certificates, Certificates)
    radius = 0.01 * stats.norm.ppf(0.001 ** (1 / 500))
    np.testing.assert_allclose(certificates.radii, [radius], rtol=1e-6)
    assert certificates.radii.dtype == np.float64
    assert certificates.classes.dtype == np.int64


@pytest.mark.parametrize("alpha", [0.01, 0.2])
def test_the_bound_fails_as_rarely_as_promised(alpha):
    """The exact rate of failure first, then certify's own."""
    n, images, distance = 60, 600, 0.2
    share = stats.norm.cdf(distance / SIGMA)
    k = np.arange(n + 1)
    rate = stats.binom.pmf(k, n, share) @ (bound(k, n, alpha) > share)
    assert rate <= alpha
    smoothed = SmoothedClassifier(linear(), SIGMA)
    _, radii = smoothed.certify(
        at(*[distance] * images), n, alpha=alpha, seed=0
    )
    failures = int(np.sum(radii > distance))
    assert 1e-4 < stats.binomtest(failures, images, rate).pvalue


def test_the_class_is_chosen_by_other_samples_than_its_bound():
    """Chosen by the same ones, even chances were certified twice as often."""
    n, images, alpha = 100, 600, 0.2
    rate = stats.binom.pmf(range(n + 1), n, 0.5) @ (
        bound(np.arange(n + 1), n, alpha) > 0.5
    )
    smoothed = SmoothedClassifier(linear(), SIGMA)
    found, radii = smoothed.certify(
        at(*[0] * images), n, selection_samples=n, alpha=alpha, seed=0
    )
    certified = int(np.sum(found != ABSTAIN))
    assert 1e-4 < stats.binomtest(certified, images, rate).pvalue
    assert stats.binomtest(certified, images, 2 * rate).pvalue < 1e-6
    assert np.all((radii == 0) == (found == ABSTAIN))


def test_abstains_where_the_classes_are_even():
    network, x = bins(3)
    smoothed = SmoothedClassifier(network, SIGMA)
    # A third of the probability is less than a half, however many samples.
    assert smoothed.certify(x, seed=0) == Certificates([ABSTAIN], [0.0])
    classes, radii = SmoothedClassifier(linear(), SIGMA).certify(at(0), seed=0)
    assert classes == [ABSTAIN] and radii == [0.0]


def test_an_images_noise_does_not_depend_on_its_batch(batch):
    network, x = small_network(), batch[0][:7]
    smoothed = SmoothedClassifier(network, 0.5)
    together = smoothed.count(x, 300, seed=4, first=90)
    for i in range(7):
        alone = smoothed.count(x[i : i + 1], 300, seed=4, first=90 + i)
        np.testing.assert_array_equal(alone[0], together[i])
    picked = smoothed.count(x[[1, 5]], 300, seed=4, first=np.array([91, 95]))
    np.testing.assert_array_equal(picked, together[[1, 5]])
    certify = smoothed.certify(x, 300, seed=4)
    last = smoothed.certify(x[5:], 300, seed=4, first=5)
    np.testing.assert_array_equal(last.radii, certify.radii[5:])
    predicted = smoothed.predict(x, 300, seed=4)
    np.testing.assert_array_equal(
        smoothed.predict(x[5:], 300, seed=4, first=5), predicted[5:]
    )


@pytest.mark.parametrize("batch_size", [1, 7, 64, 5000])
def test_counts_do_not_depend_on_the_size_of_the_batch(batch_size):
    x = at(0.0, 0.1)
    expected = SmoothedClassifier(linear(), SIGMA).count(x, 1003, seed=5)
    smoothed = SmoothedClassifier(linear(), SIGMA, batch_size=batch_size)
    np.testing.assert_array_equal(smoothed.count(x, 1003, seed=5), expected)


def test_images_and_seeds_have_noise_of_their_own():
    network, x = bins(50)
    smoothed = SmoothedClassifier(network, SIGMA)
    counts = [smoothed.count(np.repeat(x, 2, 0), seed=s) for s in (0, 1, 0)]
    np.testing.assert_array_equal(counts[0], counts[2])
    distinct = {tuple(row) for pair in counts for row in pair.tolist()}
    assert len(distinct) == 4
    fresh = [tuple(smoothed.count(x)[0]) for _ in range(2)]
    assert fresh[0] != fresh[1]
    keras.utils.set_random_seed(0)
    again = tuple(smoothed.count(x)[0])
    keras.utils.set_random_seed(0)
    assert again == tuple(smoothed.count(x)[0])


def averaged(network, x, sigma, samples=32):
    """The logarithm of a smoothed softmax, which attacks can climb."""
    noise = tf.random.stateless_normal([samples, *x.shape[1:]], (1, 2))

    def smooth(x):
        noisy = tf.reshape(x[:, None] + sigma * noise, [-1, *x.shape[1:]])
        p = tf.nn.softmax(network(noisy, training=False))
        p = tf.reduce_mean(tf.reshape(p, [-1, samples, p.shape[-1]]), axis=1)
        return tf.math.log(p + 1e-6)

    return smooth


def test_no_attack_within_the_radius_changes_a_certified_digit(digits):
    sigma, (images, labels) = 0.25, digits
    noisy = keras.layers.GaussianNoise(sigma, seed=1)
    network = small_network()
    model = keras.Sequential([keras.Input((8, 8, 1)), noisy, network])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss=loss)
    model.fit(images[:1000], labels[:1000], epochs=4, verbose=0)
    x, y = images[1000:1060], labels[1000:1060]
    smoothed = SmoothedClassifier(model, sigma)
    answers = smoothed.predict(x, seed=0)
    classes, radii = smoothed.certify(x, 2000, seed=0)
    # Predict tells two classes apart; certify needs one above a half.
    assert np.mean(classes == y) <= np.mean(answers == y)
    assert np.mean(classes == y) > 0.7
    decided = (classes != ABSTAIN) & (answers != ABSTAIN)
    np.testing.assert_array_equal(classes[decided], answers[decided])

    radius = np.quantile(radii, 0.4)
    certain = radii > radius
    x, classes = x[certain], classes[certain]
    surrogate = averaged(network, x, sigma)
    for epsilon, changed in ((radius, False), (6 * radius, True)):
        attack = ak.attacks.PGD(ak.threat_models.L2(epsilon), num_steps=10)
        x_adv = attack(surrogate, x, classes, seed=0)
        moved = np.linalg.norm(np.reshape(x_adv - x, [len(x), -1]), axis=1)
        assert np.all(moved <= 1.0001 * epsilon) and moved.mean() > radius / 2
        found = smoothed.predict(x_adv, 2000, seed=1)
        other = (found != classes) & (found != ABSTAIN)
        assert other.any() == changed


@pytest.mark.parametrize("from_logits", [True, False])
def test_a_single_output_stands_for_two_classes(from_logits):
    """A logit is above 0 where its probability is above 1/2."""
    inputs = keras.Input((4, 4, 1))
    activation = None if from_logits else "sigmoid"
    layer = keras.layers.Dense(1, activation=activation)
    model = keras.Model(inputs, layer(keras.layers.Flatten()(inputs)))
    weights = [WEIGHTS.reshape(16, 1), np.array([-WEIGHTS.sum() / 2])]
    layer.set_weights(weights)
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=from_logits))
    x = at(-0.3, -0.1, 0.0, 0.1, 0.3)
    smoothed = SmoothedClassifier(model, SIGMA)
    counts = smoothed.count(x, seed=0)
    two = SmoothedClassifier(linear(), SIGMA).count(x, seed=0)
    # But for a sample on the boundary, where rounding decides.
    assert counts.shape == (5, 2) and np.abs(counts - two).max() <= 1
    found = smoothed.predict(x, seed=0)
    np.testing.assert_array_equal(found, [0, 0, ABSTAIN, 1, 1])
    np.testing.assert_array_equal(
        smoothed.certify(x[[0, 4]], 1000, seed=0).classes, [0, 1]
    )


def test_a_single_probability_must_be_known_as_one():
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")]
    )
    with pytest.raises(ValueError, match="expects logits.*Received"):
        SmoothedClassifier(model, SIGMA).predict(np.zeros((1, 3), "float32"))


def test_several_outputs_may_be_probabilities(batch):
    network = small_network()
    softmax = keras.Sequential([network, keras.layers.Softmax()])
    for model in (softmax, lambda x: tf.nn.softmax(network(x))):
        np.testing.assert_array_equal(
            SmoothedClassifier(model, 0.5).count(batch[0][:3], 200, seed=0),
            SmoothedClassifier(network, 0.5).count(batch[0][:3], 200, seed=0),
        )


def test_eager_compiled_and_plain_functions_agree(batch):
    network, x = small_network(), batch[0][:2]
    compiled = SmoothedClassifier(network, 0.5, batch_size=80)
    expected = compiled.count(x, 200, seed=0)
    plain = SmoothedClassifier(lambda x: network(x), 0.5)
    np.testing.assert_array_equal(plain.count(x, 200, seed=0), expected)

    class Eager(keras.Model):
        def call(self, x):
            seen.append(tf.executing_eagerly())
            return network(x)

    seen, model = [], Eager()
    model.compile(loss="mse", run_eagerly=True)
    eager = SmoothedClassifier(model, 0.5, batch_size=80)
    np.testing.assert_array_equal(eager.count(x, 200, seed=0), expected)
    assert all(seen) and len(seen) == 1 + 2 * 3  # a probe, then batches


def test_the_network_is_in_inference_mode(batch):
    network = small_network()
    dropped = small_network(dropout=0.9, batch_norm=True)
    dropped.layers[-1].set_weights(network.layers[-1].get_weights())
    dropped.layers[1].set_weights(network.layers[1].get_weights())
    state = [np.array(weight) for weight in dropped.weights]
    # Batch normalization that has seen nothing changes next to nothing.
    counts = [
        SmoothedClassifier(one, 0.5).count(batch[0][:4], 500, seed=0)
        for one in (network, dropped)
    ]
    assert np.abs(counts[0] - counts[1]).max() <= 5
    for before, after in zip(state, dropped.weights, strict=True):
        np.testing.assert_array_equal(before, after)


def test_one_trace_however_many_samples_and_images():
    traces = []

    def network(x):
        if not tf.executing_eagerly():
            traces.append(x.shape)
        return linear()(x)

    smoothed = SmoothedClassifier(network, SIGMA)
    smoothed.predict(at(0.1), 20)
    once = len(traces)
    smoothed.predict(at(0.1, 0.2, 0.3), 3000, seed=1)
    smoothed.certify(at(0.1, 0.2), 2001, 50, first=3)
    smoothed.count(at(0.1), 7)
    assert len(traces) == once


def test_float64():
    keras.config.set_floatx("float64")
    try:
        dtypes = []

        def network(x):
            dtypes.append(x.dtype)
            return linear()(x)

        x = at(-0.2, 0.0, 0.1)
        distances, n = np.array([-0.2, 0.0, 0.1]), 2000
        counts = SmoothedClassifier(network, SIGMA).count(x, n, seed=0)
        assert set(dtypes) == {tf.float64}
        share = stats.norm.cdf(distances / SIGMA)
        error = np.sqrt(share * (1 - share) / n)
        assert np.all(np.abs(counts[:, 1] / n - share) < 4 * error)
    finally:
        keras.config.set_floatx("float32")


def test_repr_shows_the_arguments():
    def network(x):
        return x

    smoothed = SmoothedClassifier(network, 0.5, bounds=(0, 255))
    assert repr(smoothed) == (
        f"SmoothedClassifier(model={network!r}, sigma=0.5, "
        "bounds=(0.0, 255.0), batch_size=1000)"
    )


def test_images_within_other_bounds():
    smoothed = SmoothedClassifier(linear(), SIGMA, bounds=(-1, 2))
    assert smoothed.predict(at(1.0), seed=0) == [1]
    with pytest.raises(ValueError, match="Images must lie within.*Received"):
        smoothed.predict(at(9.0))


def test_data_without_bounds():
    smoothed = SmoothedClassifier(linear(), SIGMA, bounds=None)
    assert smoothed.predict(at(9.0), seed=0) == [1]
    with pytest.raises(ValueError, match="must hold finite numbers"):
        smoothed.predict(at(np.nan))


@pytest.mark.parametrize(
    "settings, error",
    [
        ({"model": "network"}, "`model` must be .* Received: model='network'"),
        *(
            ({"sigma": sigma}, "`sigma` must be .* Received: sigma=")
            for sigma in (0, -1, np.nan, np.inf, "1", True, None)
        ),
        ({"bounds": (1, 0)}, "`bounds` must be .* Received: bounds="),
        ({"batch_size": 0}, "`batch_size` must be .* Received: batch_size=0"),
        ({"batch_size": 1.5}, "`batch_size` must be .* Received"),
    ],
)
def test_bad_settings(settings, error):
    settings = {"model": linear(), "sigma": SIGMA, **settings}
    with pytest.raises((ValueError, TypeError), match=error):
        SmoothedClassifier(**settings)


def untouched(x):
    raise RuntimeError("an argument was refused too late")


@pytest.mark.parametrize("method", ["predict", "certify"])
@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"num_samples": 0}, "`num_samples` must be .* Received"),
        ({"num_samples": 50.0}, "`num_samples` must be .* Received"),
        ({"num_samples": True}, "`num_samples` must be .* Received"),
        (
            {"alpha": 0},
            "`alpha` .* must lie between 0 and 1. Received: alpha=0",
        ),
        (
            {"alpha": 1},
            "`alpha` .* must lie between 0 and 1. Received: alpha=1",
        ),
        ({"alpha": np.nan}, "`alpha` .* must lie .* Received: alpha=nan"),
        ({"alpha": 1e-300}, "`alpha` .* must lie .* Received: alpha=1e-300"),
        ({"seed": "7"}, "`seed` must be .* Received"),
        ({"x": np.zeros((0, 4, 4, 1), "float32")}, "data set is empty"),
        ({"x": np.zeros((1, 4, 4, 1), int)}, "Images must be floating-point"),
        ({"x": np.zeros(4, "float32")}, "Images must have a known shape"),
        ({"x": np.full((1, 4, 4, 1), np.nan)}, "Images must lie within"),
    ],
)
def test_bad_arguments(method, arguments, error):
    smoothed = SmoothedClassifier(untouched, SIGMA)
    arguments = {"x": at(0.1), **arguments}
    with pytest.raises((ValueError, TypeError), match=error):
        getattr(smoothed, method)(**arguments)


def test_bad_selection_samples():
    smoothed = SmoothedClassifier(untouched, SIGMA)
    error = "`selection_samples` must be .* Received: selection_samples=0"
    with pytest.raises(ValueError, match=error):
        smoothed.certify(at(0.1), selection_samples=0)


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("method", ["predict", "certify"])
def test_the_least_number_of_samples_is_the_one_that_the_error_names(
    method, alpha
):
    """All agree: p = 2 / 2^n in predict's test, alpha^(1/n) in certify."""
    likely = 2 / alpha if method == "predict" else 1 / alpha
    least = int(np.ceil(np.log2(likely)))
    call = getattr(SmoothedClassifier(linear(), 0.01), method)
    for n in {1, least - 1}:
        error = f"at least {least} for alpha={alpha}; .* num_samples={n}"
        with pytest.raises(ValueError, match=error):
            call(at(0.9), n, alpha=alpha)
    answer = call(at(0.9), least, alpha=alpha)
    assert answer == [1] if method == "predict" else answer.radii[0] > 0


def test_networks_that_do_not_fit():
    x = at(0.1)
    with pytest.raises(ValueError, match="one tensor of shape .batch, classes"):
        SmoothedClassifier(lambda x: x, SIGMA).predict(x)
    inputs = [keras.Input((4, 4, 1)), keras.Input((4, 4, 1))]
    outputs = keras.layers.Flatten()(keras.layers.add(inputs))
    with pytest.raises(ValueError, match="single input. Received: 2 inputs"):
        SmoothedClassifier(keras.Model(inputs, outputs), SIGMA).predict(x)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite(value):
    """Not at the probes, and not in the first batch: far from the images."""

    def network(x):
        far = tf.reduce_max(x, axis=[1, 2, 3]) > 0.5 + 3.3 * SIGMA
        return tf.where(far[:, None], value, linear()(x))

    smoothed = SmoothedClassifier(network, SIGMA, batch_size=50)
    error = "outputs must be finite. Received: .* NaN or infinity"
    with pytest.raises(ValueError, match=error):
        smoothed.certify(at(0.0, 0.0), seed=0)
