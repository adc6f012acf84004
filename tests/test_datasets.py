import builtins
import itertools
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from atent_keras import datasets


def numbered(size):
    """Images that can be told from their labels: image i is all i."""
    labels = np.arange(size)
    images = np.broadcast_to(labels[:, None, None, None], (size, 2, 2, 1))
    return images.astype("uint8"), labels


def shuffled(size=50, batch_size=8, **arguments):
    images, labels = numbered(size)
    return datasets.pipeline(
        images, labels, batch_size, shuffle=True, **arguments
    )


def order(dataset):
    return np.concatenate([y for _, y in dataset]).tolist()


def tfds_builder():
    try:
        from tensorflow_datasets import builder
    except ImportError as error:
        pytest.skip(f"tensorflow-datasets does not work here: {error}")
    return builder


def epochs(dataset, n):
    return [order(dataset) for _ in range(n)]


class TestPipeline:
    def test_keeps_the_order_unless_shuffled(self):
        dataset = datasets.pipeline(*numbered(50), 8)
        assert epochs(dataset, 2) == [list(range(50))] * 2

    def test_images_keep_their_labels(self):
        for x, y in shuffled():
            expected = np.broadcast_to(y[:, None, None, None], x.shape)
            np.testing.assert_allclose(x * 255, expected, rtol=1e-6)

    def test_bytes_become_floats_in_the_unit_interval(self):
        images = np.arange(256, dtype="uint8").reshape(1, 16, 16, 1)
        ((x, _),) = datasets.pipeline(images, [0], 1)
        assert x.dtype == tf.float32
        np.testing.assert_array_equal(
            np.ravel(x), np.arange(256, dtype="float32") / np.float32(255)
        )
        assert np.max(x) == 1

    def test_floats_are_kept(self):
        (x_train, y_train), _ = datasets.digits()
        ((x, y),) = datasets.pipeline(x_train, y_train, 1297)
        np.testing.assert_array_equal(x, x_train)
        np.testing.assert_array_equal(y, y_train)

    @pytest.mark.parametrize(
        "drop_remainder, sizes",
        [(False, [8] * 6 + [2]), (True, [8] * 6)],
    )
    def test_batches_and_their_number_are_known(self, drop_remainder, sizes):
        dataset = shuffled(drop_remainder=drop_remainder)
        assert [len(y) for _, y in dataset] == sizes
        assert dataset.cardinality() == len(sizes)
        assert len(set(order(dataset))) == sum(sizes)
        assert dataset.element_spec[0].shape[1:] == (2, 2, 1)

    def test_every_epoch_is_another_permutation(self):
        first, second, third = epochs(shuffled(), 3)
        assert sorted(first) == sorted(second) == list(range(50))
        assert first != second != third != first

    def test_order_is_a_function_of_seed_and_epoch(self):
        expected = epochs(shuffled(seed=1), 4)
        assert epochs(shuffled(seed=1), 4) == expected
        assert epochs(shuffled(seed=2), 4) != expected
        for e in range(4):
            dataset = shuffled(seed=1, first_epoch=e)
            assert epochs(dataset, 4 - e) == expected[e:]

    def test_order_does_not_change_with_the_version(self):
        # As first released: a run can be resumed under another TensorFlow.
        dataset = shuffled(10, 10, seed=1)
        assert order(dataset) == [6, 3, 0, 8, 7, 1, 2, 4, 9, 5]
        assert order(dataset) == [4, 1, 8, 0, 6, 5, 9, 3, 2, 7]

    def test_order_does_not_depend_on_the_batch_size(self):
        assert order(shuffled(batch_size=7)) == order(shuffled(batch_size=50))

    def test_endless_is_one_epoch_after_the_other(self):
        expected = sum(epochs(shuffled(seed=1), 4), [])
        dataset = shuffled(seed=1, first_epoch=1, endless=True)
        assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
        batches = list(dataset.take(21))
        assert [len(y) for _, y in batches] == ([8] * 6 + [2]) * 3
        assert order(batches) == expected[50:]
        # Whoever reads ahead, and wherever it begins.
        ahead = dataset.skip(9).prefetch(5)
        assert order(ahead.take(5)) == expected[116:150]
        assert order(ahead.take(12)) == expected[116:]

    def test_peeking_changes_nothing(self):
        expected = epochs(shuffled(), 2)
        dataset = shuffled()
        for _ in range(3):
            next(iter(dataset))
        list(itertools.islice(dataset, 6))
        assert order(dataset) == expected[0]
        next(iter(dataset))
        assert order(dataset) == expected[1]

    def test_the_last_batch_completes_an_epoch(self):
        expected = epochs(shuffled(), 2)
        dataset = shuffled()
        # As Keras does, which knows the number of batches and asks no more.
        iterator = iter(dataset)
        for _ in range(7):
            next(iterator)
        assert order(dataset) == expected[1]

    def test_skip_resumes_within_an_epoch(self):
        expected = epochs(shuffled(), 3)
        dataset = shuffled(first_epoch=1)
        assert order(dataset.skip(3)) == expected[1][3 * 8 :]
        assert order(dataset) == expected[2]

    def test_repeat_goes_through_the_epochs(self):
        assert order(shuffled().repeat(3)) == sum(epochs(shuffled(), 3), [])

    def test_fit_sees_one_epoch_after_the_other(self):
        seen = []

        class Model(keras.Model):
            def call(self, x):
                return x[:, 0, 0]

            def train_step(self, data):
                seen.extend(data[1].numpy().tolist())
                return {"steps": 1.0}

        expected = epochs(shuffled(), 4)
        model = Model()
        model.compile(run_eagerly=True)
        dataset = shuffled()
        # Keras warns that it does not shuffle a data set, unless told so.
        quiet = {"shuffle": False, "verbose": 0}
        model.fit(dataset, epochs=2, **quiet)
        model.fit(dataset, epochs=4, initial_epoch=2, **quiet)
        assert seen == sum(expected, [])

        # Here Keras calls every 5 of the 7 steps an epoch.
        seen.clear()
        model.fit(shuffled().repeat(), epochs=4, steps_per_epoch=5, **quiet)
        assert seen[:100] == sum(expected[:2], [])

    def test_augmentation_is_a_function_of_seed_and_epoch(self):
        (images, labels), _ = datasets.digits()

        def epoch(images, e, batch_size, **arguments):
            dataset = datasets.pipeline(
                images,
                labels[: len(images)],
                batch_size,
                augment=True,
                first_epoch=e,
                **arguments,
            )
            return np.concatenate([x for x, _ in dataset])

        first = epoch(images, 0, 100)
        np.testing.assert_array_equal(epoch(images, 0, 33), first)
        assert np.any(epoch(images, 1, 100) != first)
        assert np.any(epoch(images, 0, 100, seed=1) != first)

    def test_augmentation_draws_every_crop_equally_often(self):
        # One bright pixel, at (4, 6): the crop's corner is (8, 10) minus the
        # place where it turns up.
        n, sides = 8100, 9
        images = np.zeros((n, 20, 20, 1), "float32")
        images[:, 8, 5] = 1
        ((x, _),) = datasets.pipeline(images, np.zeros(n), n, augment=True)
        _, rows, columns, _ = np.nonzero(x)
        assert len(rows) == n
        assert set(rows) == set(range(4, 13))
        # From column 5 to 1..9; mirrored, to 19 - (1..9) = 10..18.
        assert set(columns) == set(range(1, 19))
        counts = np.zeros((20, 20))
        np.add.at(counts, (rows, columns), 1)
        counts = counts[4:13, 1:19]
        expected = n / (2 * sides**2)
        # Chi squared with 161 degrees of freedom: mean 161, deviation 18.
        statistic = np.sum((counts - expected) ** 2 / expected)
        assert 161 - 5 * 18 < statistic < 161 + 5 * 18

    def test_a_shift_draws_every_place_and_mirrors_nothing(self):
        n = 500
        images = np.zeros((n, 7, 7, 1), "float32")
        images[:, 3, 2] = 1
        ((x, _),) = datasets.pipeline(images, np.zeros(n), n, shift=1)
        _, rows, columns, _ = np.nonzero(x)
        places, counts = np.unique([rows, columns], axis=1, return_counts=True)
        expected = [(i, j) for i in (2, 3, 4) for j in (1, 2, 3)]
        assert [*map(tuple, places.T)] == expected
        assert np.all(np.abs(counts - n / 9) < 5 * np.sqrt(n / 9))

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"shift": -1}, "Received: shift=-1"),
            ({"shift": 2, "augment": True}, "own 4 pixels. Received: shift=2"),
            ({"batch_size": 0}, "`batch_size` must be a positive integer of "
             "32 bits. Received: batch_size=0"),
            ({"batch_size": 2**31}, "Received: batch_size=2147483648"),
            ({"seed": 2**63}, "of 64 bits. Received: seed=9223372036854775808"),
            ({"batch_size": 2.0}, "Received: batch_size=2.0"),
            ({"seed": None}, "`seed` must be an integer of 64 bits. "
             "Received: seed=None"),
            ({"first_epoch": -1}, "`first_epoch` must be a non-negative "
             "integer of 32 bits. Received: first_epoch=-1"),
            ({"batch_size": 51, "drop_remainder": True}, "no batch is left. "
             "Received: batch_size=51 for 50 images"),
            ({"labels": np.zeros(3)}, r"labels of shape \(3,\)"),
            ({"images": np.zeros((50, 4))}, r"images of shape \(50, 4\)"),
            ({"images": np.zeros((0, 2, 2, 1)), "labels": []}, "at least 1"),
        ],
    )  # fmt: skip
    def test_rejects(self, arguments, message):
        images, labels = numbered(50)
        arguments = {
            "images": images,
            "labels": labels,
            "batch_size": 8,
            **arguments,
        }
        with pytest.raises(ValueError, match=message):
            datasets.pipeline(**arguments)


class TestPermutation:
    def test_is_one(self):
        shuffle = datasets.permutation(1000, [3, 4])
        assert sorted(np.asarray(shuffle)) == list(range(1000))

    def test_is_uniform(self):
        n = 2400
        drawn = [
            tuple(np.asarray(datasets.permutation(4, [7, i]))) for i in range(n)
        ]
        counts = np.array(
            [drawn.count(p) for p in itertools.permutations(range(4))]
        )
        # Chi squared with 23 degrees of freedom: mean 23, deviation 6.8.
        statistic = np.sum((counts - n / 24) ** 2 / (n / 24))
        assert statistic < 23 + 5 * 6.8


class TestCropAndMirror:
    def test_matches_the_loop(self):
        (x, _), _ = datasets.digits()
        x = np.concatenate([x[:30], x[30:60]], axis=-1)
        random = np.random.default_rng(0)
        offsets = random.integers(0, 9, (30, 2))
        offsets[:3] = [(0, 0), (8, 8), (4, 4)]
        mirrored = random.random(30) < 0.5
        expected = np.zeros_like(x)
        for image, result, (top, left), flip in zip(
            x, expected, offsets, mirrored
        ):
            padded = np.pad(image, [(4, 4), (4, 4), (0, 0)])
            result[:] = padded[top : top + 8, left : left + 8]
            if flip:
                result[:] = result[:, ::-1].copy()
        actual = datasets.crop_and_mirror(x, offsets.astype("int32"), mirrored)
        np.testing.assert_array_equal(actual, expected)

    def test_by_hand(self):
        image = np.array([[1, 2, 3], [4, 5, 6]], "uint8").reshape(1, 2, 3, 1)

        def move(top, left, mirrored):
            moved = datasets.crop_and_mirror(
                image, np.array([[top, left]]), np.array([mirrored])
            )
            return moved[0, :, :, 0].numpy().tolist()

        assert move(4, 4, False) == [[1, 2, 3], [4, 5, 6]]
        assert move(4, 4, True) == [[3, 2, 1], [6, 5, 4]]
        assert move(3, 4, False) == [[0, 0, 0], [1, 2, 3]]
        assert move(4, 5, False) == [[2, 3, 0], [5, 6, 0]]
        assert move(4, 5, True) == [[0, 3, 2], [0, 6, 5]]
        assert move(8, 0, False) == [[0, 0, 0], [0, 0, 0]]


class TestDigits:
    def test_are_the_real_ones(self):
        load_digits = pytest.importorskip("sklearn.datasets").load_digits
        (x_train, y_train), (x_test, y_test) = datasets.digits()
        assert x_train.shape == (1297, 8, 8, 1) and y_train.shape == (1297,)
        assert x_test.shape == (500, 8, 8, 1) and y_test.shape == (500,)
        assert x_train.dtype == x_test.dtype == "float32"
        assert y_train.dtype == y_test.dtype == "int64"
        x = np.concatenate([x_train, x_test])
        assert x.min() == 0 and x.max() == 1

        def rows(images, labels):
            pixels = np.reshape(images, (1797, 64))
            return sorted(map(tuple, np.column_stack([pixels, labels])))

        images, labels = load_digits(return_X_y=True)
        # Nothing lost, nothing twice: the two sets are disjoint.
        assert rows(x * 16, np.concatenate([y_train, y_test])) == rows(
            images, labels
        )

    def test_division_is_stratified_and_seeded(self):
        _, (x_test, y_test) = datasets.digits()
        # Each class has 174 to 183 of 1,797, hence 48 to 51 of 500.
        counts = np.bincount(y_test)
        assert counts.min() >= 48 and counts.max() <= 51
        _, (x_again, y_again) = datasets.digits()
        np.testing.assert_array_equal(x_again, x_test)
        np.testing.assert_array_equal(y_again, y_test)
        _, (x_other, _) = datasets.digits(seed=1)
        assert np.any(x_other != x_test)

    def test_size_of_the_test_set(self):
        (x_train, _), (x_test, _) = datasets.digits(test_size=100)
        assert len(x_train) == 1697 and len(x_test) == 100

    @pytest.mark.parametrize("test_size", [9, 1788, 0.3])
    def test_rejects(self, test_size):
        with pytest.raises(ValueError, match=f"from 10 to 1787.*{test_size}"):
            datasets.digits(test_size=test_size)


@pytest.mark.parametrize(
    "missing, load",
    [
        ("sklearn", datasets.digits),
        ("tensorflow_datasets", lambda: datasets.mnist("train")),
    ],
)
def test_names_the_extra_where_a_package_is_missing(missing, load, monkeypatch):
    real_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == missing:
            raise ImportError(f"No module named {name!r}")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"atent_keras\[examples\]"):
        load()


def test_import_is_light():
    code = (
        "import sys; from atent_keras import datasets; "
        "print('tensorflow_datasets' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


@pytest.mark.parametrize("load", [datasets.mnist, datasets.cifar10])
class TestArguments:
    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"split": "val"}, '"train", "validation" or "test".*split=\'val'),
            ({"batch_size": 0}, "a positive integer.*batch_size=0"),
            ({"limit": 0}, "a positive integer.*limit=0"),
            ({"validation_size": 0}, "a positive.*validation_size=0"),
        ],
    )
    def test_rejects(self, load, arguments, message):
        with pytest.raises(ValueError, match=message):
            load(**{"split": "train", **arguments})

    def test_says_where_it_looked(self, load, tmp_path, monkeypatch):
        tfds_builder()

        def no_network(*args, **kwargs):
            raise OSError("no network")

        monkeypatch.setattr("urllib.request.urlopen", no_network)
        with pytest.raises(FileNotFoundError) as caught:
            load("train", data_dir=tmp_path)
        message = str(caught.value)
        for words in (
            f"No prepared copy of {load.__name__} in {tmp_path}",
            "no network",
            "data_dir",
            "TFDS_DATA_DIR",
            f"with {load.__name__}/3",
        ):
            assert words in message


SIZES = {"mnist": 60_000, "cifar10": 50_000}
SHAPES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
class TestPrepared:
    @pytest.fixture
    def load(self, name):
        if not tfds_builder()(name).is_prepared():
            pytest.skip(f"{name} is not prepared in TFDS's data_dir")
        return getattr(datasets, name)

    def test_splits(self, name, load):
        sizes = {
            "train": SIZES[name] - 5000,
            "validation": 5000,
            "test": 10_000,
        }
        for split, size in sizes.items():
            dataset = load(split, batch_size=1000)
            assert dataset.cardinality() == size // 1000
            assert dataset.element_spec[0].dtype == tf.float32
            assert dataset.element_spec[0].shape[1:] == SHAPES[name]
            x, y = next(iter(dataset))
            assert np.min(x) == 0 and 0.98 < np.max(x) <= 1
            assert y.dtype.is_integer and set(y.numpy()) == set(range(10))

    def test_validation_is_disjoint_from_training(self, name, load):
        # Tells images apart by their bytes; neither set repeats any.
        def images(split, **arguments):
            if name == "cifar10":
                arguments["augment"] = False
            dataset = load(split, batch_size=1000, **arguments)
            batches = [np.round(x * 255).astype("uint8") for x, _ in dataset]
            return [image.tobytes() for image in np.concatenate(batches)]

        train, validation = images("train"), images("validation")
        assert len(train) == SIZES[name] - 5000 and len(validation) == 5000
        assert not set(train) & set(validation)
        larger = images("validation", validation_size=6000)
        assert larger[-5000:] == validation

    def test_limit_takes_the_first(self, name, load):
        everything = load("test", batch_size=100)
        dataset = load("test", batch_size=100, limit=250)
        assert dataset.cardinality() == 3
        assert order(dataset) == order(everything.take(3))[:250]
        train = load("train", batch_size=100, limit=250)
        assert len(order(train)) == 250

    def test_only_training_data_are_changed(self, name, load):
        kwargs = {"batch_size": 64, "limit": 100, "drop_remainder": True}
        train, test = load("train", **kwargs), load("test", **kwargs)
        first, second = epochs(train, 2)
        assert first != second and len(first) == 64
        first, second = epochs(test, 2)
        assert first == second and len(first) == 100
        again = load("train", first_epoch=1, **kwargs)
        train = load("train", **kwargs)
        order(train)
        for (x, y), (x_again, y_again) in zip(train, again, strict=True):
            np.testing.assert_array_equal(x, x_again)
            np.testing.assert_array_equal(y, y_again)

    def test_validation_must_leave_training_data(self, name, load):
        message = f"from 1 to {SIZES[name] - 1}.*validation_size={SIZES[name]}"
        with pytest.raises(ValueError, match=message):
            load("train", validation_size=SIZES[name])
