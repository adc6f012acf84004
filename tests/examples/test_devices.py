"""What `--device` asks for, on machines with and without a GPU."""

import types

import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

import devices

FLAGS = flags.FLAGS
CPU, GPU = (
    types.SimpleNamespace(name=f"/physical_device:{kind}:0", device_type=kind)
    for kind in ("CPU", "GPU")
)


@pytest.fixture
def machine(monkeypatch):
    """A function that says which devices TensorFlow sees; what it is told."""
    told = []

    def sees(*seen):
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda: [*seen])
        return told

    monkeypatch.setattr(
        tf.config, "set_visible_devices", lambda *given: told.append(given)
    )
    if not FLAGS.is_parsed():
        FLAGS(["test"])
    return sees


def test_refuses_to_begin_without_the_gpu_asked_for(machine):
    machine(CPU)
    with flagsaver.flagsaver(device="gpu"):
        with pytest.raises(
            ValueError,
            match="--device=gpu must find a GPU.*Received: .*device:CPU:0$",
        ):
            devices.choose()


@pytest.mark.parametrize(
    "device, seen, hidden",
    [
        ("gpu", (CPU, GPU), []),
        ("cpu", (CPU, GPU), [([], "GPU")]),
        (None, (CPU,), []),
        (None, (CPU, GPU), []),
    ],
    ids=["gpu", "cpu", "default, none", "default, one"],
)
def test_hides_the_gpu_only_when_asked_to(device, seen, hidden, machine):
    told = machine(*seen)
    with flagsaver.flagsaver(device=device):
        devices.choose()
    assert told == hidden


@pytest.mark.parametrize("free, said", [({0}, "1 core"), ({0, 3}, "2 cores")])
def test_a_processor_has_as_many_cores_as_are_ours(monkeypatch, free, said):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(
        devices.os, "sched_getaffinity", lambda process: free, raising=False
    )
    assert devices.name().endswith(f", {said}")
