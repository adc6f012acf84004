"""Keras's other export formats, against `model.predict`.

They need packages that the test extra leaves out: `pip install ".[formats]"`.
"""

import importlib.util

import numpy as np
import pytest
import tensorflow as tf

from conftest import small_network
from conftest import trained_model

# Converters and runtimes warn about one another.
pytestmark = pytest.mark.filterwarnings("ignore")

PACKAGES = {
    "onnx": ("tf2onnx", "onnxruntime"),
    "openvino": ("openvino",),
    "litert": ("ai_edge_litert",),
}
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "litert": ".tflite"}


def run_onnx(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def run_openvino(path, images):
    import openvino

    compiled = openvino.Core().compile_model(
        path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return compiled(images)[0]


def run_litert(path, images):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path)
    (image,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(image["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(image["index"], images)
    interpreter.invoke()
    (output,) = interpreter.get_output_details()
    return interpreter.get_tensor(output["index"])


RUN = {"onnx": run_onnx, "openvino": run_openvino, "litert": run_litert}


@pytest.mark.parametrize("format", PACKAGES)
@pytest.mark.parametrize(
    "kind", ["functional", "subclassed", "mixed_bfloat16", "ema"]
)
def test_answers_as_the_model_does(kind, format, digits, tmp_path):
    missing = [p for p in PACKAGES[format] if not importlib.util.find_spec(p)]
    if missing:
        pytest.skip(f"{format} needs {', '.join(missing)}")
    model = trained_model(kind, digits)
    images = digits[0][:1000]
    expected = np.asarray(tf.cast(model.predict(images, verbose=0), tf.float32))
    if kind == "mixed_bfloat16":
        # No runtime knows all operations in bfloat16: a float32 twin it is.
        twin = small_network()
        twin.set_weights(model.get_weights())
        twin(images[:1])  # Keras's ONNX export wants a model that was called
        model = twin
    path = str(tmp_path / f"model{SUFFIXES[format]}")
    model.export(path, format=format, verbose=False)
    found = RUN[format](path, images).astype("float32")
    difference = np.abs(found - expected).max()
    same = np.mean(found.argmax(-1) == expected.argmax(-1))
    print(f"\n{kind} {format}: {difference:.1e}, same class {same:.1%}")
    if kind == "mixed_bfloat16":
        # bfloat16 keeps 8 bits.
        assert difference < 0.05 * np.abs(expected).max() and same > 0.98
    else:
        assert difference < 1e-4 and same == 1
