"""Requests over HTTP to a process that has TensorFlow alone."""

import base64
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
import scripts
from conftest import small_model

NAMES = [f"digit {i}" for i in range(10)]


@pytest.fixture(scope="module")
def served(tmp_path_factory, digits):
    """A trained model, and the port of a server that has its export."""
    model = small_model()
    model.fit(digits[0][:640], digits[1][:640], epochs=3, verbose=0)
    folder = tmp_path_factory.mktemp("served") / "1"
    ak.export_classifier(model, folder, labels=NAMES)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    process = subprocess.Popen(
        [
            sys.executable,
            str(pathlib.Path(__file__).with_name("server.py")),
            str(folder),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env={**environment, **scripts.CPU},
    )
    yield model, int(process.stdout.readline()), process
    process.kill()
    process.communicate()


def post(port, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/models/classifier:predict", body
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def body(instances, signature="serving_default"):
    return json.dumps(
        {"signature_name": signature, "instances": instances}
    ).encode()


def png(image):
    return tf.io.encode_png(tf.cast(tf.round(image * 255), tf.uint8)).numpy()


def b64(file):
    return {"b64": base64.b64encode(file).decode()}


def bad_requests(image):
    """Bodies of requests that must be refused, by name."""
    whole = png(image)
    huge = whole[:16] + (100_000).to_bytes(4, "big") * 2 + whole[24:]
    empty = whole[:16] + bytes(8) + whole[24:]
    return {
        "no JSON": b"{",
        "no image": body([b64(b"GIF89a, says it")], "encoded"),
        "no base64": body([{"b64": "?"}], "encoded"),
        "truncated PNG": body([b64(whole[:40])], "encoded"),
        "0x0": body([b64(empty)], "encoded"),
        "huge": body([b64(huge)], "encoded"),
        "nothing": body([b64(b"")], "encoded"),
        "wrong channels": body(np.zeros((1, 8, 8, 3)).tolist()),
        "empty batch": body([]),
        "empty batch of files": body([], "encoded"),
        "floats in 0..255": body((255 * image[None]).tolist()),
        "not a number": body([[[[float("nan")]] * 8] * 8]),
        "no such signature": body([1], "none"),
    }


def test_refuses_bad_requests_and_keeps_answering(served, digits):
    _, port, process = served
    for name, bad in bad_requests(digits[0][0]).items():
        status, answer = post(port, bad)
        assert status == 400, name
        assert answer["error"], name
    assert process.poll() is None
    assert post(port, body(digits[0][:2].tolist()))[0] == 200


def test_answers_a_thousand_requests_from_four_clients(served, digits):
    model, port, process = served
    images = digits[0][:1000]
    expected = tf.nn.softmax(model.predict(images, verbose=0)).numpy()
    bad = list(bad_requests(images[0]).values())

    def ask(i):
        if i % 3 == 2:
            return post(port, bad[i // 3 % len(bad)])
        image = images[i]
        kind = i % 9
        if kind in (0, 1):
            return post(port, body([image.tolist()]))
        if kind in (3, 4):
            levels = np.round(image * 255).astype(int)
            return post(port, body([levels.tolist()], "uint8"))
        return post(port, body([b64(png(image))], "encoded"))

    with concurrent.futures.ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(ask, range(1000)))
    assert process.poll() is None
    assert sum(status == 400 for status, _ in answers) == 333
    for i, (status, answer) in enumerate(answers):
        if i % 3 == 2:
            assert status == 400
            continue
        assert status == 200, answer
        (prediction,) = answer["predictions"]
        # Files and integers round the image to 256 levels.
        tolerance = 1e-5 if i % 9 in (0, 1) else 2e-2
        np.testing.assert_allclose(
            prediction["probabilities"], expected[i], atol=tolerance
        )
        index = int(np.argmax(prediction["probabilities"]))
        assert prediction["class_index"] == index
        assert prediction["label"] == NAMES[index]
