"""The generator Philox, in operations that XLA compiles as they are.

TensorFlow's own draws other numbers under XLA than without, and none for
single rows. These are the ones without, up to rounding.

References:
- Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

import math

import tensorflow as tf

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_STEPS_OF_KEY = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
# By which seeds are mixed, so that any two differ in all of their bits.
_KEY_OF_SEEDS = 0x3EC8F720, 0x02461E29
# A logarithm's argument, lest it be that of zero.
_SMALLEST = 1e-7


def fold_in(seed, data):
    """Returns a seed of its own for `data`, a scalar int32 or int64.

    It is that of `tf.random.experimental.stateless_fold_in`.
    """
    data = tf.convert_to_tensor(data)
    low, high, *_ = _words(*_mixed(seed))
    if data.dtype == tf.int32:
        word = tf.bitcast(tf.cast(low, tf.uint32), tf.int32)
    else:
        word = tf.bitcast(_joined(low, high), tf.int64)
    return tf.stack([word, data])


def key_and_counter(seed):
    """Returns a key, a scalar uint64, and a counter, a pair of them."""
    key, counter = _mixed(seed)
    return _joined(*key), (_joined(*counter[:2]), _joined(*counter[2:]))


def normal(key, counter, dtype):
    """Draws N(0, 1) numbers.

    Args:
        key: Scalar uint64.
        counter: Pair of uint64 tensors of the same shape, the lower half of
            each counter value first.
        dtype: float32 or float64.

    Returns:
        Tensor of shape `(*shape, count)`: a value of the counter gives four
        numbers in float32, two in float64.
    """
    words = _words(_halves(key), [*_halves(counter[0]), *_halves(counter[1])])
    if dtype == tf.float32:
        units = [_unit(word) for word in words]
        pairs = [units[:2], units[2:]]
    else:
        pairs = [[_unit(*words[:2]), _unit(*words[2:])]]
    numbers = []
    # The method of Box and Muller.
    for one, other in pairs:
        length = tf.sqrt(-2 * tf.math.log(tf.maximum(one, _SMALLEST)))
        angle = 2 * math.pi * other
        numbers += [tf.sin(angle) * length, tf.cos(angle) * length]
    return tf.stack(numbers, axis=-1)


def _mixed(seed):
    """Returns two words of a key and four of a counter, as uint64s."""
    parts = tf.unstack(tf.bitcast(tf.cast(seed, tf.int64), tf.uint64))
    key = [tf.constant(word, tf.uint64) for word in _KEY_OF_SEEDS]
    *key, one, other = _words(key, [*_halves(parts[0]), *_halves(parts[1])])
    none = tf.zeros_like(one)
    return key, [none, none, one, other]


def _words(key, counter):
    """Mixes four words of 32 bits, as uint64s, by a key of two."""
    for number in range(_ROUNDS):
        low, high = (
            factor * word for factor, word in zip(_MULTIPLIERS, counter[::2])
        )
        (low, low_high), (high, high_high) = _halves(low), _halves(high)
        first, second = (
            _halves(word + tf.constant(step * number % 2**32, word.dtype))[0]
            for word, step in zip(key, _STEPS_OF_KEY)
        )
        counter = [
            high_high ^ counter[1] ^ first,
            high,
            low_high ^ counter[3] ^ second,
            low,
        ]
    return counter


def _halves(value):
    """Returns the lower and the upper 32 bits of uint64s, as such."""
    shift = tf.constant(32, tf.uint64)
    upper = tf.bitwise.right_shift(value, shift)
    return value ^ tf.bitwise.left_shift(upper, shift), upper


def _joined(lower, upper):
    """Returns uint64s made of two halves."""
    return lower | tf.bitwise.left_shift(upper, tf.constant(32, tf.uint64))


def _unit(word, more=None):
    """Returns numbers in [0, 1), from one word, or from two for float64."""
    if more is None:
        bits = tf.cast(word & 0x7FFFFF | 0x3F800000, tf.uint32)
        return tf.bitcast(bits, tf.float32) - 1
    bits = _joined(more, word & 0xFFFFF | 0x3FF00000)
    return tf.bitcast(bits, tf.float64) - 1
