"""How models are made from tensors."""

import keras

from atent_keras import functional


def test_no_model_without_a_layer_is_made(monkeypatch):
    # Keras 3.10 to 3.13 refuse one, "`inputs` not connected to `outputs`".
    made, model = [], keras.Model

    def recorded(inputs, outputs):
        made.append((inputs, outputs))
        return model(inputs, outputs)

    monkeypatch.setattr(keras, "Model", recorded)
    functional._functional.__wrapped__()
    ((inputs, outputs),) = made
    assert inputs is not outputs
