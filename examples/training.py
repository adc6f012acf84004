"""A training run from flags to results, the same for all data sets."""

import atexit
import contextlib
import shutil
import sys
import tempfile
import time

import keras
import matplotlib
from absl import app
from absl import flags
from absl import logging

import atent_keras as ak
import devices
import run_folder
import settings
from atent_keras import plots
from atent_keras.lock import Lock
from resume import Resume

FLAGS = flags.FLAGS


def run(dataset, argv):
    """Trains, evaluates and exports; picks up where a killed run stopped.

    Args:
        dataset: `"digits"`, `"mnist"` or `"cifar10"`.
        argv: What is left of the command line after its flags.
    """
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    # Whatever is wrong with the flags shows before any data are loaded.
    with settings.plain_errors():
        settings.check()
        _, threat_model = settings.loss()
        name, attack = settings.attack(dataset, threat_model)
        config = settings.config(dataset)
        folder = run_folder.RunFolder(FLAGS.output_dir, config)
        devices.choose()
        strategy = devices.strategy(FLAGS.strategy, FLAGS.worker_timeout)
    report = folder.report()
    if report is not None:
        print(f"This run is complete, in {folder.path}:")
        print(report)
        return
    chief = devices.is_chief(strategy)
    with contextlib.ExitStack() as alone:
        if chief:  # The other workers write nothing.
            with settings.plain_errors():
                alone.enter_context(Lock(folder.path, "--output_dir"))
                # Another run may have begun in there just before.
                folder.check()
        train(dataset, folder, strategy, chief, threat_model, name, attack)
    if chief:
        print("\nIn " + str(folder.path.resolve()) + ":")
        for path in sorted(folder.path.iterdir()):
            print(f"  {path.name}")


def train(dataset, folder, strategy, chief, threat_model, name, attack):
    """Trains, evaluates and exports in a folder that nobody else works in."""
    with settings.plain_errors():
        steps = len(data(dataset, "train"))
        validation = data(dataset, "validation")
        with strategy.scope():
            model = settings.model(dataset, steps)
        # This builds the metrics, which the checkpoints hold, too.
        model.evaluate(validation.take(1), verbose=0)
        if chief:
            folder.create()
        resume = Resume(
            folder / "checkpoints",
            model,
            steps,
            FLAGS.checkpoint_every,
            strategy,
            writes=chief,
        )
        done = resume.restore()
        epoch, step = divmod(done, steps)
        if chief:
            prepare(folder, done, epoch)
    if chief:
        describe(dataset, folder, model.loss, steps)
        if done:
            print(f"Going on after epoch {epoch} and {step} steps.")
        sys.stdout.flush()
    else:
        # What the callbacks of this worker write, nobody needs.
        folder = run_folder.RunFolder(tempfile.mkdtemp(), folder.config)
        atexit.register(shutil.rmtree, folder.path)
    if epoch < FLAGS.epochs:
        train = data(dataset, "train", first_epoch=epoch, endless=True)
        with settings.plain_errors():
            model.fit(
                train.skip(step),
                steps_per_epoch=steps,
                validation_data=validation,
                epochs=FLAGS.epochs,
                initial_epoch=epoch,
                callbacks=callbacks(folder, validation, threat_model, resume),
                shuffle=False,  # the data set does
                verbose=int(FLAGS.verbose) if chief else 0,
            )
        resume.save()
    if chief:
        finish(dataset, folder, name, attack)


def prepare(folder, done, epoch):
    """Checks what a run that goes on finds, and drops what it does again."""
    if not done:
        folder.require_state()
    folder.keep_rows(epoch)
    if epoch:
        folder.require_networks("best.keras")
    if epoch == FLAGS.epochs:  # which write it no more
        folder.require_networks("last.keras")


def describe(dataset, folder, loss, steps):
    print(
        f"{FLAGS.model} by {settings.title()} on {dataset}, {FLAGS.epochs} "
        f"epochs of {steps} steps, batch {FLAGS.batch_size}, "
        f"{FLAGS.optimizer} {FLAGS.learning_rate:g} {FLAGS.schedule}, "
        f"{FLAGS.precision}, seed {FLAGS.seed}\n{loss!r}\n"
        f"into {folder.path.resolve()}"
    )


def data(dataset, split, **training):
    """One split of the data set, as the flags limit it."""
    if split == "train":
        training["seed"] = FLAGS.seed
        if dataset != "cifar10":
            training["shift"] = FLAGS.shift or 0
    batch_size = FLAGS.batch_size if split == "train" else 500
    limit = FLAGS[f"{split}_limit"].value
    if dataset == "digits":
        return digits(split, batch_size, limit, **training)
    return getattr(ak.datasets, dataset)(
        split, batch_size, limit=limit, data_dir=FLAGS.data_dir, **training
    )


def digits(split, batch_size, limit=None, **training):
    """The digits as the other data sets: the last 200 for training validate."""
    (x, y), test = ak.datasets.digits()
    held = slice(-200, None) if split == "validation" else slice(-200)
    x, y = test if split == "test" else (x[held], y[held])
    return ak.datasets.pipeline(
        x[:limit], y[:limit], batch_size, shuffle=split == "train", **training
    )


def callbacks(folder, validation, threat_model, resume):
    """What happens after each epoch, in this order."""
    attack = ak.attacks.PGD(
        threat_model, num_steps=FLAGS.validation_attack_steps
    )
    # A plain network has no robustness to choose by.
    robust = FLAGS.method != "plain"
    monitor = "val_robust_accuracy" if robust else "val_accuracy"
    best = [float(row[monitor]) for row in folder.rows()]
    chain = [
        ak.callbacks.RobustAccuracy(validation, attack, FLAGS.seed),
        resume.clock,
        keras.callbacks.ModelCheckpoint(
            folder.draft("best.keras"),
            monitor=monitor,
            mode="max",
            save_best_only=True,
            initial_value_threshold=max(best, default=None),
        ),
        keras.callbacks.ModelCheckpoint(folder.draft("last.keras")),
        run_folder.Publish(folder, ["best.keras", "last.keras"]),
        keras.callbacks.CSVLogger(folder / "metrics.csv", append=True),
    ]
    if FLAGS.ema is not None:
        # First, so that all others see the averaged weights.
        chain.insert(0, keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    if FLAGS.tensorboard:
        chain.append(
            keras.callbacks.TensorBoard(
                folder / "tensorboard", write_graph=False
            )
        )
    return [*chain, resume]


def finish(dataset, folder, name, attack):
    """Evaluates and exports the best network, in float32."""
    best = keras.models.load_model(folder / "best.keras", compile=False)
    # Coarse arithmetic is for training; an attack deserves exact gradients.
    keras.config.set_dtype_policy("float32")
    network = settings.network(dataset)
    network.set_weights(best.get_weights())
    test = data(dataset, "test")
    start = time.time()
    report = ak.evaluate_robustness(
        network, test, {name: attack}, FLAGS.seed, checks=None, verbose=0
    )
    seconds = sum(float(row["seconds"]) for row in folder.rows())
    text = (
        f"{FLAGS.model} by {settings.title()} on {dataset}, {report}\n"
        f"(best epoch by validation; test set, attack seed {FLAGS.seed}; "
        f"trained for {seconds:.0f} s, attacked for "
        f"{time.time() - start:.0f} s)"
    )
    print(text, flush=True)
    run_folder.write_text(folder / "report.txt", text + "\n")
    x, y = next(iter(test.unbatch().batch(8)))
    matplotlib.use("Agg")  # a file is all it draws on
    figure = plots.adversarial_images(
        network,
        x,
        attack(network, x, y, seed=FLAGS.seed),
        y,
        class_names=settings.CIFAR10 if dataset == "cifar10" else None,
    )
    figure.suptitle(
        f"{settings.title()}, {name}, "
        f"$\\epsilon$ = {attack.threat_model.epsilon:.3g}"
    )
    figure.savefig(folder / "images.png", dpi=120)
    network.save(folder / "classifier.keras")
    network.export(str(folder / "saved_model"), verbose=False)
    # Last: it marks the run as complete.
    run_folder.write_json(
        folder / "results.json",
        {
            "method": settings.title(),
            **settings.as_json(report),
            "seed": FLAGS.seed,
            "training_seconds": seconds,
        },
    )
