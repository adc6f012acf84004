"""Where it is trained: what a model has to mind under `tf.distribute`."""

import contextlib
import functools
import itertools
import re
import types

import keras
import tensorflow as tf

from atent_keras import checks


def is_multi_worker(strategy):
    """Whether the replicas of `strategy` live in several processes."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return False
    spec = strategy.cluster_resolver.cluster_spec()
    # A cluster of one is no cluster to Keras.
    return sum(map(spec.num_tasks, spec.jobs)) > 1


def is_distributed(model):
    """Whether a model was built, or is used, within a strategy's scope."""
    with model.distribute_strategy.scope():
        return tf.distribute.has_strategy()


def check(model):
    """Checks that a model fits the strategy that it is about to run under.

    Raises:
        ValueError: If variables of the model or of its optimizer were made
            outside the strategy's scope, or if XLA would have to compile a
            synchronized BatchNormalization or a scaled loss.
    """
    strategy = model.distribute_strategy
    active = tf.distribute.get_strategy()
    if tf.distribute.has_strategy() and strategy is not active:
        raise ValueError(
            "A model must be used under the strategy that it was built under. "
            f"Received: a model built under {strategy!r}, used within the "
            f"scope of {active!r}"
        )
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables]
    if optimizer is not None:
        variables += optimizer.variables
    for variable in variables:
        if not strategy.extended.variable_created_in_scope(variable.value):
            raise ValueError(
                "A model must be built and compiled within the scope of one "
                "strategy, `with strategy.scope():`. Received: the variable "
                f"{variable.path!r}, which was made outside, for {strategy!r}"
            )
    if model.jit_compile and is_distributed(model):
        for layer in synchronized_layers(model):
            raise ValueError(
                "Under a strategy, XLA can't compile what the replicas do "
                "together. Make BatchNormalization with synchronized=False, "
                "or compile the model with jit_compile=False. Received: "
                f"jit_compile=True, and the layer {layer.name!r} with "
                "synchronized=True"
            )
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                "Under a strategy, XLA can't compile a chain whose loss is "
                "scaled. Use the policy mixed_bfloat16, which needs no scale, "
                "or compile the model with jit_compile=False. Received: "
                f"jit_compile=True and {optimizer!r}"
            )


def synchronized_layers(model):
    """Yields the layers whose batch statistics are the global batch's."""
    for layer in getattr(model, "layers", []):
        if getattr(layer, "synchronized", False):
            yield layer
        yield from synchronized_layers(layer)


def must_unroll(model):
    """Whether replicas meet at every point: they can't inside of a loop."""
    return tf.distribute.has_strategy() and bool([*synchronized_layers(model)])


@contextlib.contextmanager
def without_xla(model):
    """Has Keras make its functions of a distributed model without XLA.

    Keras would compile all replicas as one program, and XLA knows neither
    collectives nor the devices of others. `on_replica` compiles what each
    replica does by itself.
    """
    jit_compile = model.jit_compile
    if is_distributed(model):
        model.jit_compile = False
    try:
        yield
    finally:
        model.jit_compile = jit_compile


def step_by_step(model, function):
    """Returns Keras's function of `steps_per_execution` batches, made to work.

    Its loop inside a graph fails on what a strategy iterates over; its loop
    in Python, over other iterators, does not.
    """
    if model.steps_per_execution == 1 or not is_distributed(model):
        return function

    def steps(iterator):
        first = next(iterator)
        return function(itertools.chain([first], iterator))

    return steps


def on_replica(model, step, weights, state, batch):
    """Makes a training step from this replica's part of the batch.

    Outside of a strategy's replicas, that is `step(...)` and no more.

    - With `jit_compile`, XLA compiles each part of the step, none of which has
      a collective.
    - A replica that got no image of an uneven batch makes its step from one of
      zeros, which counts nothing, and keeps its state.
    - The state (BatchNormalization's statistics) moves by the mean of what
      the replicas want, so that all of them keep the same.

    Args:
        model: A Keras model.
        step: Function of `part`, which compiles a function, and of the next
            three. It returns a `Step` and the new state.
        weights: Values of `model.trainable_variables`.
        state: Values of `model.non_trainable_variables`.
        batch: A `Batch`.

    Returns:
        As `step` does.
    """
    if not tf.distribute.has_strategy() or (
        tf.distribute.in_cross_replica_context()
    ):
        return step(_as_it_is, weights, state, batch)
    part = _as_it_is
    if model.jit_compile:
        part = functools.partial(tf.function, autograph=False, jit_compile=True)
    size = tf.shape(batch.x)[0]
    some = tf.minimum(size, 1)
    rows = (batch.x, batch.y, batch.sample_weight)
    x, y, sample_weight = (_append(one, 1 - some) for one in rows)
    found, wanted = step(
        part,
        weights,
        state,
        batch._replace(
            x=x,
            y=y,
            sample_weight=sample_weight,
            weight=batch.weight * tf.cast(some, keras.config.floatx()),
        ),
    )
    found = found._replace(x_adv=found.x_adv[:size], y_pred=found.y_pred[:size])
    # Not the mean of the values: those that stay, stay to the last bit.
    moving = [i for i, value in enumerate(state) if value.dtype.is_floating]
    moves = [
        (wanted[i] - state[i]) * tf.cast(some, state[i].dtype) for i in moving
    ]
    for i, move in zip(moving, _all_reduce("MEAN", moves)):
        wanted[i] = state[i] + move
    return found, wanted


def total(gradients):
    """Sums gradients, of which some may be missing, over all replicas."""
    there = [i for i, value in enumerate(gradients) if value is not None]
    gradients = list(gradients)
    summed = _all_reduce("SUM", [gradients[i] for i in there])
    for i, value in zip(there, summed):
        gradients[i] = value
    return gradients


def _all_reduce(how, values):
    """Reduces a list of values over the replicas, if there are several."""
    if (
        not values
        or tf.distribute.in_cross_replica_context()
        or tf.distribute.get_strategy().num_replicas_in_sync == 1
    ):
        return values
    return tf.distribute.get_replica_context().all_reduce(how, values)


def _as_it_is(function):
    return function


def predict(model, x):
    """Returns a model's outputs in inference mode, of no images, too.

    Some layers fail on the empty part that an uneven batch leaves a replica.
    """
    if not tf.distribute.has_strategy():
        return checks.call(model, x, training=False)
    size = tf.shape(x)[0]
    some = _append(x, 1 - tf.minimum(size, 1))
    return checks.call(model, some, training=False)[:size]


def _append(rows, count):
    """Appends `count` rows of zeros."""
    if rows is None:
        return None
    rows = tf.convert_to_tensor(rows)
    return tf.pad(rows, [[0, count]] + [[0, 0]] * (rows.shape.rank - 1))


def one_replica(data):
    """The specification of one replica's part of a data set's batches."""
    # A data set that is distributed already has several specs for each.
    return keras.tree.map_structure(
        lambda spec: tf.nest.flatten(spec, expand_composites=True)[0],
        data.element_spec,
    )


def reducible(logs):
    """Gives each log the axis over which Keras means them across workers."""
    if not is_multi_worker(tf.distribute.get_strategy()):
        return logs
    return keras.tree.map_structure(lambda log: log[None], logs)


def check_length(data, steps_per_epoch):
    """Checks that all replicas can know where an epoch ends.

    Raises:
        ValueError: If that is for the data alone to say.
    """
    if steps_per_epoch is not None:
        return
    unknown = isinstance(data, types.GeneratorType) or (
        isinstance(data, keras.utils.PyDataset) and data.num_batches is None
    )
    if isinstance(data, tf.data.Dataset):
        unknown = data.cardinality() < 0
    if unknown:
        raise ValueError(
            "Under a strategy, `steps_per_epoch` must be given for data whose "
            "length is unknown or infinite, for instance "
            "`fit(dataset.repeat(), steps_per_epoch=100)`. Received: "
            f"steps_per_epoch=None with {data!r}"
        )


@contextlib.contextmanager
def lost_workers(model):
    """Says in plain words that another worker has stopped.

    TensorFlow notices it by the connection or, within seconds, by missing
    heartbeats, and ends what waits for that worker.

    Raises:
        ConnectionError: Instead of TensorFlow's error.
    """
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        strategy = model.distribute_strategy
        if not is_multi_worker(strategy):
            raise
        spec = strategy.cluster_resolver.cluster_spec()
        tasks = re.findall(r"/job:(\w+)/\S*?task:(\d+)", error.message)
        names = {
            f"{job} {task} at {spec.task_address(job, int(task))}"
            for job, task in tasks
        }
        raise ConnectionError(
            "All workers must run until the end, and one has stopped. Start "
            "all of them again. Received: no answer from "
            f"{' and '.join(sorted(names)) or 'another worker'}"
        ) from error
