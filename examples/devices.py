"""Where a run is trained: one device, several, or several machines."""

import json
import os
import pathlib
import platform
import re
import shutil
import socket
import time

import tensorflow as tf
from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "device",
    None,
    ["cpu", "gpu"],
    "gpu: nothing is begun unless TensorFlow sees one; cpu: none is used, seen "
    "or not (default: a GPU where there is one).",
)

TF_CONFIG = (
    '{"cluster": {"worker": ["host1:port", "host2:port"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


def choose():
    """Does what `--device` says, while TensorFlow is still fresh.

    Raises:
        ValueError: If a GPU is asked for, and TensorFlow sees none.
    """
    if FLAGS.device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    require(FLAGS.device, tf.config.get_visible_devices())


def require(device, seen):
    """Checks that devices are what `--device` asks for.

    Args:
        device: String, the value of the flag.
        seen: List of TensorFlow's devices.

    Raises:
        ValueError: If a GPU is asked for, and none is among them.
    """
    if device == "gpu" and not any(one.device_type == "GPU" for one in seen):
        names = ", ".join(one.name for one in seen)
        raise ValueError(
            "--device=gpu must find a GPU that TensorFlow sees, which takes a "
            'driver, and libraries: pip install "tensorflow[and-cuda]". '
            f"Received: {names or 'no device'}"
        )


def strategy(name, timeout):
    """Returns the strategy called `name`, which other workers may share.

    TensorFlow has to be fresh: no tensor made, no device asked for.

    Args:
        name: `"mirrored"`: all GPUs of this machine, or all logical CPU
            devices where there is none. `"multiworker"`: all GPUs of all
            machines that the environment variable `TF_CONFIG`, or Slurm's
            variables, name. `None`: TensorFlow's default, one device.
        timeout: Seconds to wait for the other workers.

    Raises:
        ValueError: If the environment does not say who the workers are.
        TimeoutError: If a worker can't be reached.
    """
    if name == "mirrored":
        devices = [
            tf.config.list_logical_devices(kind) for kind in ("GPU", "CPU")
        ]
        return tf.distribute.MirroredStrategy(
            [device.name for device in devices[0] or devices[1]]
        )
    if name == "multiworker":
        resolver = cluster()
        wait_for_workers(resolver, timeout)
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    return tf.distribute.get_strategy()


def is_chief(strategy):
    """Whether this process is the one that writes files."""
    resolver = getattr(strategy, "cluster_resolver", None)
    if resolver is None or not resolver.cluster_spec().as_dict():
        return True
    first = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return (resolver.task_type, resolver.task_id) == (first, 0)


def cluster():
    """Reads who the workers are: from `TF_CONFIG`, else from Slurm."""
    if "TF_CONFIG" in os.environ:
        check_tf_config(os.environ["TF_CONFIG"])
        return tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if "SLURM_STEP_NODELIST" in os.environ:
        return slurm_cluster()
    raise ValueError(
        "--strategy=multiworker must find its workers in the environment "
        f"variable TF_CONFIG, such as {TF_CONFIG}, or be started by Slurm's "
        "srun. Received: neither TF_CONFIG nor SLURM_STEP_NODELIST"
    )


def slurm_cluster():
    """TensorFlow's reading of Slurm, with or without GPUs."""
    gpus = "CUDA_VISIBLE_DEVICES" in os.environ or shutil.which("nvidia-smi")
    # Without GPUs, the resolver still wants to share out some.
    tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
    pretended = {"gpus_per_node": tasks, "gpus_per_task": 1}
    slurm = tf.distribute.cluster_resolver.SlurmClusterResolver(
        auto_set_gpu=bool(gpus), **({} if gpus else pretended)
    )
    spec = slurm.cluster_spec()
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        spec,
        task_type=slurm.task_type,
        task_id=slurm.task_id,
        num_accelerators=slurm.num_accelerators() if gpus else {},
        rpc_layer="grpc",
    )


def check_tf_config(text):
    """Raises a `ValueError` where TensorFlow would not say what is wrong."""

    def require(holds, rule):
        if not holds:
            raise ValueError(
                f"TF_CONFIG must {rule}; it looks like {TF_CONFIG}. Received: "
                f"TF_CONFIG={text}"
            )

    try:
        config = json.loads(text)
    except ValueError:
        config = None
    require(isinstance(config, dict), "be a JSON object")
    jobs, task = config.get("cluster"), config.get("task")
    require(
        isinstance(jobs, dict)
        and set(jobs) <= {"chief", "worker"}
        and all(jobs.values()),
        'have a "cluster" of "worker"s, with or without a "chief"',
    )
    for addresses in jobs.values():
        require(isinstance(addresses, list), "list the addresses of each job")
    addresses = sum(jobs.values(), [])
    require(
        all(
            isinstance(address, str) and address.rpartition(":")[2].isdecimal()
            for address in addresses
        ),
        "give each address as host:port",
    )
    require(
        len(set(addresses)) == len(addresses),
        "give each worker its own address",
    )
    require(
        isinstance(task, dict)
        and task.get("type") in jobs
        and isinstance(task.get("index"), int)
        and 0 <= task["index"] < len(jobs[task["type"]]),
        'say in "task" which "type" and "index" of the cluster this one is',
    )


def wait_for_workers(resolver, timeout):
    """Waits until every worker's address answers.

    TensorFlow waits without end, nor does it say for whom. Each worker
    listens until it has seen all others, then leaves its port to TensorFlow.

    Raises:
        TimeoutError: If an address does not answer in time.
    """
    spec = resolver.cluster_spec()
    own = spec.task_address(resolver.task_type, resolver.task_id)
    deadline = time.monotonic() + timeout
    with socket.create_server(("", int(own.rpartition(":")[2]))):
        for job in spec.jobs:
            for address in spec.job_tasks(job):
                host, _, port = address.rpartition(":")
                while address != own:
                    try:
                        socket.create_connection((host, int(port)), 5).close()
                        break
                    except OSError as error:
                        if time.monotonic() > deadline:
                            raise TimeoutError(
                                "All workers must be started within "
                                f"--worker_timeout={timeout} seconds. "
                                f"Received: no answer from {address} "
                                f"({error})"
                            ) from error
                        time.sleep(0.1)


def name():
    """What the first GPU is called, or without one the processor."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return details.get("device_name", gpus[0].name)
    cpus = pathlib.Path("/proc/cpuinfo")
    text = cpus.read_text() if cpus.exists() else ""
    model = re.search(r"model name\s*:\s*(.+)", text)
    # As few as the system leaves to this process, of all that there are.
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count()
    cores = f"{count} core{'s' if count != 1 else ''}"
    return f"{model[1] if model else platform.machine()}, {cores}"
