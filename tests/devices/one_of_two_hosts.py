"""One process of two, with four devices each: `python one_of_two_hosts.py PORT RANK`. Prints what it finds as JSON."""

import json
import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import handgrad as hg


def main(port: str, rank: int) -> None:
    jax.config.update("jax_enable_x64", True)
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=rank)
    mesh = jax.make_mesh((8,), ("data",))  # the devices of both processes
    by_batch, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())

    model, loss = hg.chain(hg.linear(6), hg.layer_norm(), hg.tanh(), hg.linear(3)), hg.softmax_cross_entropy()
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((16, 5)), rng.integers(0, 3, 16)
    params = model.init(jax.random.key(0), x)
    mine = slice(8 * rank, 8 * rank + 8)  # the half of the batch that this process has read
    batch = [jax.make_array_from_process_local_data(by_batch, a[mine]) for a in (x, labels)]

    def run(params, x, labels):
        clipped = hg.clipped_grad(model, loss, l2_clip_norm=0.1)(params, x, labels)
        return hg.value_and_grad(model, loss)(params, x, labels), clipped

    expected = jax.jit(run)(params, x, labels)
    with jax.set_mesh(mesh):
        found = jax.jit(run)(jax.device_put(params, whole), *batch)
    off = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(np.asarray(a) - np.asarray(b)))), found, expected)
    print(
        json.dumps({"devices": jax.device_count(), "processes": jax.process_count(), "off": max(jax.tree.leaves(off))})
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
