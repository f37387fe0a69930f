"""One process of two, with four devices each: `python laid_out_on_two_hosts.py PORT RANK`. Trains in every layout, and
prints, as JSON, by how much the state after the last step differs from that of one device."""

import json
import os
import sys

# The last count of devices is the one that counts.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from handgrad.training import connect


def main(port: str, rank: int) -> None:
    jax.config.update("jax_enable_x64", True)
    connect(f"127.0.0.1:{port}", rank, 2, timeout=60)
    from devices import laid_out  # makes layers, which needs no device, and parameters, which does

    found = {}
    for name in ("mlp", "gpt2"):
        batch = (*laid_out.MODELS[name][1:3], laid_out.WEIGHTS)
        mine = jax.tree.map(lambda a: np.split(a, 2)[rank], batch)
        start = laid_out.start(name)
        expected, _ = laid_out.trained(name, start, batch)
        for layout_name in laid_out.LAYOUTS:
            layout = laid_out.layout_of(name, layout_name, "explicit")
            # One program: CPU processes hang where dozens that communicate are in flight, one for each array.
            whole = jax.jit(lambda tree: tree, out_shardings=NamedSharding(layout.mesh, PartitionSpec()))
            with jax.set_mesh(layout.mesh):
                state, _ = laid_out.trained(name, layout.place(start), layout.place_batch(batch), layout)
                found[f"{name}, {layout_name}"] = laid_out.off(whole(state), expected)
                parts = whole(layout.place_batch(mine, part=True))
                found[f"{name}, {layout_name}, from parts"] = laid_out.off(parts, batch)
    layout = laid_out.layout_of("mlp", "fully sharded", "explicit")
    curves = [laid_out.fitted(on)[1] for on in (None, layout)]
    found["fit"] = float(np.max(np.abs(np.subtract(*curves))))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
