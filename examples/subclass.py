"""The two ways to train a network of one's own, on handwritten digits.

    python examples/subclass.py

First a subclass of `ATENTModel` with its own layers, trained by `fit`; then
a training loop written out, around a plain Keras network.
"""

import keras
import tensorflow as tf
from absl import app
from absl import flags

import atent_keras as ak

FLAGS = flags.FLAGS
flags.DEFINE_integer("epochs", 15, "Epochs of each training.", lower_bound=1)


@keras.saving.register_keras_serializable("examples")
class Classifier(ak.ATENTModel):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convolutions = [
            keras.layers.Conv2D(32, 3, padding="same", activation="relu")
            for _ in range(3)
        ]
        self.pool = keras.layers.MaxPooling2D()
        self.flatten = keras.layers.Flatten()
        self.dropout = keras.layers.Dropout(0.25)
        self.logits = keras.layers.Dense(10)

    def call(self, x, training=None):
        for convolution in self.convolutions:
            x = convolution(x)
        x = self.flatten(self.pool(x))
        return self.logits(self.dropout(x, training=training))


def main(argv):
    del argv
    keras.utils.set_random_seed(0)
    train, test = ak.datasets.digits()
    threat_model = ak.threat_models.Linf(0.15)
    sampler = ak.attacks.SGLD(threat_model, step_size=0.04, num_steps=10)
    loss = ak.ATENTRegularizedLoss(
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        sampler,
        loss_iterates=2,
    )
    attacks = {"PGD-40": ak.attacks.PGD(threat_model, num_steps=40)}

    print("A subclass, trained by fit")
    model = Classifier()
    model.compile("adam", loss=loss, metrics=["accuracy"])
    model.fit(*train, batch_size=64, epochs=FLAGS.epochs, verbose=2)
    print(ak.evaluate_robustness(model, test, attacks))

    print("\nA loop of one's own, around a plain Keras network")
    network = ak.architectures.SmallCNN((8, 8, 1), padding="same")
    optimizer = keras.optimizers.Adam()

    @tf.function
    def train_step(x, y):
        step = loss.value_and_gradients(network, x, y)
        optimizer.apply_gradients(
            zip(step.gradients, network.trainable_variables)
        )
        return step.loss

    optimizer.build(network.trainable_variables)
    batches = ak.datasets.pipeline(*train, 64, shuffle=True)
    for epoch in range(FLAGS.epochs):
        mean = keras.metrics.Mean()
        for x, y in batches:
            mean.update_state(train_step(x, y))
        print(f"epoch {epoch + 1}: loss {float(mean.result()):.4f}")
    print(ak.evaluate_robustness(network, test, attacks))


if __name__ == "__main__":
    app.run(main)
