r"""Computes, on paper, how training speeds up with the number of GPUs.

    python benchmarks/scaling.py

Counted here: weights, multiplications, and what the replicas send each other
in a step, which is recorded while a step is traced on two logical devices.
Published: the rates of GPUs and links. Assumed: the share of its peak that a
GPU reaches, and that nothing is sent while it computes.
"""

import keras
import tensorflow as tf

import atent_keras as ak

NETWORKS = {
    "PreActResNet-18": ak.architectures.PreActResNet18,
    "WRN-34-10": ak.architectures.WideResNet,
}
NUM_STEPS = 10  # of the chain, as in the preset cifar10_linf
BATCH_SIZE = 128  # on each GPU
# NVIDIA's data sheet of the H100 SXM: bfloat16 without sparsity, and NVLink
# in one direction.
PEAK = 989e12
NVLINK = 450e9
ASSUMED_SHARE = 0.4
LATENCY = 5e-6  # of one message, seconds
LINKS = {  # between hosts: bytes a second
    "10 Gb/s": 1.25e9,
    "100 Gb/s": 12.5e9,
    "400 Gb/s": 50e9,
    "8 x 400 Gb/s": 400e9,
}


def multiplications(network):
    """Multiply-adds of one image's way through a network."""
    total = 0
    for layer in network.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            pixels = 1
            for size in layer.output.shape[1:-1]:
                pixels *= size
            total += pixels * int(tf.size(layer.kernel))
    return total


def passes(num_steps, loss_iterates):
    """A step in units of one forward pass.

    The way back to the images costs as much as the way forward, and so do
    the gradients by weights, of the kept points; the start is one point more.
    """
    return 2 * (num_steps - loss_iterates + 1) + 3 * loss_iterates


def sent(network, num_steps):
    """Calls of all-reduce in one step, and the bytes of each replica."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        network = network()
        model = ak.ATENTModel(network.inputs, network.outputs)
        model.compile(
            keras.optimizers.SGD(0.1),
            ak.ATENTRegularizedLoss.from_preset(
                "cifar10_linf", num_steps=num_steps
            ),
        )
        model.optimizer.build(model.trainable_variables)
    data = tf.zeros((2, 32, 32, 3)), tf.zeros((2,), tf.int64)
    calls = []
    original = tf.distribute.ReplicaContext.all_reduce

    def record(context, reduce_op, value, *args, **kwargs):
        tensors = tf.nest.flatten(value)
        calls.append(
            sum(t.shape.num_elements() * t.dtype.size for t in tensors)
        )
        return original(context, reduce_op, value, *args, **kwargs)

    tf.distribute.ReplicaContext.all_reduce = record
    try:
        tf.function(
            lambda: strategy.run(model.train_step, args=(data,))
        ).get_concrete_function()
    finally:
        tf.distribute.ReplicaContext.all_reduce = original
    return sorted(calls)[::2]  # both replicas call it


def ring(size, members, rate):
    """Seconds of an all-reduce around a ring."""
    return (
        2 * (members - 1) / members * size / rate + 2 * (members - 1) * LATENCY
    )


def main():
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    print("| sent in a step | num_steps | bytes of each all-reduce |")
    print("|---|---|---|")
    for num_steps in (2, 20):
        calls = sent(NETWORKS["PreActResNet-18"], num_steps)
        print(f"| PreActResNet-18 | {num_steps} | {calls} |", flush=True)
    print()
    print(
        "| network | weights | forward, GFLOP an image | compute, ms a step "
        "| 8 GPUs, one host | "
        + " | ".join(f"64 hosts, {link}" for link in LINKS)
        + " |"
    )
    print("|---|---|---|---|---|" + "---|" * len(LINKS))
    for name, network in NETWORKS.items():
        network = network()
        size = 4 * sum(int(tf.size(v)) for v in network.trainable_variables)
        forward = 2 * multiplications(network)
        for kept in (NUM_STEPS, 2):
            compute = passes(NUM_STEPS, kept) * forward * BATCH_SIZE
            compute /= PEAK * ASSUMED_SHARE
            within = ring(size, 8, NVLINK)
            shares = [compute / (compute + within)] + [
                compute / (compute + within + ring(size, 64, rate))
                for rate in LINKS.values()
            ]
            print(
                f"| {name}, {kept} points kept | {size / 4e6:.1f} M "
                f"| {forward / 1e9:.2f} | {1000 * compute:.0f} | "
                + " | ".join(f"{100 * share:.1f} %" for share in shares)
                + " |",
                flush=True,
            )


if __name__ == "__main__":
    main()
