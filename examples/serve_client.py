"""Asks a server about an image, and about its adversarial twin.

    python examples/serve_client.py --image=seven.png \\
        --url=http://localhost:8501/v1/models/digits:predict

prints label and probabilities that the server gives. With --model, the
network's `.keras` file, and --truth, the image's true class, the client makes
the twin by PGD-40, rounds it to 256 grey levels, and sends that too.
"""

import base64
import json
import pathlib
import urllib.error
import urllib.request

import keras
import tensorflow as tf
from absl import app
from absl import flags

import atent_keras as ak
import settings

FLAGS = flags.FLAGS
flags.DEFINE_string("image", None, "PNG or JPEG file.", required=True)
flags.DEFINE_string(
    "url",
    "http://localhost:8501/v1/models/classifier:predict",
    "Where the server answers to predictions.",
)
flags.DEFINE_string("model", None, "The network's .keras file, to attack.")
flags.DEFINE_integer("truth", None, "True class of the image.", lower_bound=0)
settings.define_number("epsilon", 0.15, "Radius of the attack, in l_inf.")
flags.adopt_module_key_flags(settings)


def ask(file):
    """What the server says of the bytes of an image file."""
    instance = {"b64": base64.b64encode(file).decode()}
    body = {"signature_name": "encoded", "instances": [instance]}
    request = urllib.request.Request(FLAGS.url, json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)["predictions"][0]
    except urllib.error.HTTPError as error:
        raise ValueError(f"The server refused: {error.read().decode()}")
    except urllib.error.URLError as error:
        raise ValueError(
            "--url must be that of a running server. Received: "
            f"--url={FLAGS.url}: {error.reason}"
        )


def twin(file):
    """A PNG file of the image's adversarial twin."""
    model = keras.models.load_model(FLAGS.model)
    # What the server maps bytes to, as the network was exported.
    threat_model = getattr(getattr(model, "loss", None), "threat_model", None)
    lower, upper = threat_model.bounds if threat_model else (0.0, 1.0)
    span = upper - lower
    height, width, channels = model.input_shape[1:]
    image = tf.image.resize(
        tf.io.decode_image(file, channels, expand_animations=False),
        (height, width),
        antialias=True,
    )
    ball = ak.threat_models.Linf(FLAGS.epsilon * span, (lower, upper))
    attack = ak.attacks.PGD(ball, num_steps=40)
    x = lower + span * tf.clip_by_value(image[None] / 255, 0, 1)
    x_adv = attack(model, x, tf.constant([FLAGS.truth]), seed=0)
    levels = tf.cast(tf.round(255 * (x_adv[0] - lower) / span), tf.uint8)
    return tf.io.encode_png(levels).numpy()


def show(title, answer):
    probabilities = " ".join(f"{p:.3f}" for p in answer["probabilities"])
    print(f"{title}: {answer['label']}\n  probabilities {probabilities}")


def main(argv):
    del argv
    with settings.plain_errors():
        settings.check_radius(FLAGS.epsilon)
        if (FLAGS.model is None) != (FLAGS.truth is None):
            raise ValueError(
                "--model and --truth go together. Received: "
                f"--model={FLAGS.model}, --truth={FLAGS.truth}"
            )
        file = pathlib.Path(FLAGS.image).read_bytes()
        show(FLAGS.image, ask(file))
        if FLAGS.model is not None:
            path = pathlib.Path(FLAGS.image).with_suffix(".adversarial.png")
            path.write_bytes(twin(file))
            show(path, ask(path.read_bytes()))


if __name__ == "__main__":
    app.run(main)
