"""Several processes: each a worker, all on this machine."""

import json
import os
import pathlib
import socket
import time

import numpy as np
import pytest
import tensorflow as tf

import devices
import rivals
import scripts
import worker
import workers
from conftest import largest_difference
from kills import FLAGS
from kills import SCRIPT
from kills import newest

pytestmark = pytest.mark.usefixtures("on_the_cpu")

TESTS = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def alone():
    """What one process, without a strategy, comes to."""
    return {
        "digits": worker.trained_in_turn(tf.distribute.get_strategy()),
        "methods": [
            array for name in rivals.METHODS for array in rivals.trained(name)
        ],
    }


@pytest.mark.parametrize(
    "count, trainings", [(2, ["digits", "methods"]), (3, ["digits"])]
)
def test_workers_train_and_evaluate_as_one_process(
    count, trainings, alone, tmp_path
):
    script = TESTS / "worker.py"
    codes, outputs = workers.run(count, script, str(tmp_path), *trainings)
    assert codes == [0] * count, outputs[-1]
    found = [
        [*np.load(tmp_path / f"{index}.npz").values()] for index in range(count)
    ]
    for other in found[1:]:
        assert largest_difference(other, found[0]) == 0
    digits = len(alone["digits"])
    assert largest_difference(found[0][:digits], alone["digits"]) < 1e-4
    if "methods" in trainings:
        assert largest_difference(found[0][digits:], alone["methods"]) < 1e-9


def test_a_lost_worker_ends_the_others_and_all_go_on(tmp_path):
    folder = tmp_path / "run"
    flags = (
        *FLAGS,
        "--epochs=1",  # the kill comes in the first
        f"--output_dir={folder}",
        "--strategy=multiworker",
        "--worker_timeout=60",
    )
    with workers.running(2, SCRIPT, *flags) as (chief, other):
        while newest(folder) < 4:
            assert chief.returncode is None, chief.wait()
            time.sleep(0.02)
        other.kill()
        output = chief.wait()
    assert chief.returncode != 0
    message = "all of them again. Received: no answer from worker 1 at 127"
    assert message in output
    assert "Traceback" not in output
    assert not (folder / "results.json").exists()
    codes, outputs = workers.run(2, SCRIPT, *flags)
    assert codes == [0, 0], outputs[0]
    assert "Going on after epoch 0 and " in outputs[0]
    assert json.loads((folder / "results.json").read_text())
    # Only the chief says and writes anything.
    assert "accuracy on 64 examples" in outputs[0]
    assert "accuracy on" not in outputs[1]


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "must be a JSON object; .* Received: TF_CONFIG={"),
        ("[]", "must be a JSON object"),
        ("{}", 'have a "cluster" of "worker"s'),
        ('{"cluster": {"worker": []}}', 'have a "cluster" of "worker"s'),
        ('{"cluster": {"ps": ["a:1"]}}', 'have a "cluster" of "worker"s'),
        ('{"cluster": {"worker": "a:1"}}', "list the addresses"),
        ('{"cluster": {"worker": ["a"]}}', "as host:port"),
        (
            '{"cluster": {"worker": ["a:1", "a:1"]}}',
            "each worker its own address",
        ),
        ('{"cluster": {"worker": ["a:1"]}}', 'say in "task"'),
        (
            '{"cluster": {"worker": ["a:1"]}, '
            '"task": {"type": "worker", "index": 1}}',
            'say in "task"',
        ),
    ],
)
def test_refuses_a_malformed_tf_config(text, message, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=message):
        devices.strategy("multiworker", 1)


def test_refuses_to_guess_the_workers(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="neither TF_CONFIG nor SLURM"):
        devices.strategy("multiworker", 1)


def test_names_the_worker_that_does_not_answer(monkeypatch):
    ports = workers.free_ports(3)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    config = {
        "cluster": {"chief": addresses[:1], "worker": addresses[1:]},
        "task": {"type": "chief", "index": 0},
    }
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    message = f"--worker_timeout=0.2 .* no answer from {addresses[2]}"
    with socket.create_server(("127.0.0.1", ports[1])):
        with pytest.raises(TimeoutError, match=message):
            devices.strategy("multiworker", 0.2)


SLURM = {
    "SLURM_STEP_NODELIST": "node[7-8]",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_PROCID": "3",
}


@pytest.mark.parametrize("gpus, own", [(None, None), ("0,1", "1")])
def test_reads_slurm(gpus, own, monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", "")  # no nvidia-smi
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if gpus:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    resolver = devices.cluster()
    assert resolver.cluster_spec().as_dict() == {
        "worker": ["node7:8888", "node7:8889", "node8:8888", "node8:8889"]
    }
    assert (resolver.task_type, resolver.task_id) == ("worker", 3)
    assert resolver.num_accelerators() == ({"GPU": 1} if gpus else {})
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == own


def test_bad_settings_end_the_command_line_with_the_message_alone(tmp_path):
    code, output = scripts.run(
        SCRIPT,
        "--strategy=multiworker",
        f"--output_dir={tmp_path / 'run'}",
        TF_CONFIG="{",
    )
    assert code != 0
    assert "TF_CONFIG must be a JSON object" in output
    assert "Traceback" not in output
