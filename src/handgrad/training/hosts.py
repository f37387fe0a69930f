"""Processes, which find one another by jax.distributed, and the mesh of their devices."""

import socket
import time
from typing import Literal

import jax
from jax.sharding import AxisType, Mesh

from handgrad.checks import InputError, check_choice, check_count, check_positive


def connect(coordinator: str, process: int, processes: int, timeout: float = 300.0) -> None:
    """jax.distributed.initialize: makes this process one of several, before it uses a device.

    JAX ends the process, with a stack trace, if it can't connect in time; so the address is tried first. Process 0 is
    the coordinator itself, and waits for the others.

    Args:
      coordinator: "host:port" of process 0.
      process, processes: which one this is, from 0, and how many there are.
      timeout: seconds.
    Raises:
      InputError: nothing answers at this address in time; an argument is out of range.
    """
    check_count("connect", "processes", processes)
    check_positive("connect", "timeout", timeout)
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isdecimal()):
        raise InputError(f"connect: coordinator must be 'host:port', got {coordinator!r}")
    if process not in range(processes):
        raise InputError(f"connect: process must be one of 0 … {processes - 1}, got {process!r}")
    deadline = time.monotonic() + timeout
    while process != 0:
        try:
            socket.create_connection((host.strip("[]"), int(port)), max(0.1, deadline - time.monotonic())).close()
            break
        except OSError as error:
            if time.monotonic() > deadline:
                reason = f"{coordinator} didn't answer process {process} in {timeout:g} s ({error})"
                raise InputError(f"connect: the coordinator at {reason}") from None
            time.sleep(0.1)
    left = max(1, round(deadline - time.monotonic()))
    jax.distributed.initialize(coordinator, processes, process, initialization_timeout=left)


def make_mesh(data: int | None = None, model: int = 1, *, axes: Literal["explicit", "auto"] = "explicit") -> Mesh:
    """A mesh with the axes "data" and "model", of the devices of all hosts.

    Args:
      data: parts of a batch; None takes all devices.
      model: parts of a layer.
      axes: "explicit" checks shardings at trace time; "auto" leaves them to the compiler (docs/devices.md).
    Raises:
      InputError: there are fewer devices, or `model` doesn't divide them.
    """
    check_count("make_mesh", "model", model)
    check_choice("make_mesh", "axes", axes, ("explicit", "auto"))
    devices = jax.devices()
    if data is None:
        if len(devices) % model:
            raise InputError(f"make_mesh: model must divide the {len(devices)} devices, got {model}")
        data = len(devices) // model
    check_count("make_mesh", "data", data)
    if data * model > len(devices):
        raise InputError(f"make_mesh: data × model must be at most the {len(devices)} devices, got {data} × {model}")
    kind = AxisType.Explicit if axes == "explicit" else AxisType.Auto
    return jax.make_mesh((data, model), ("data", "model"), axis_types=(kind, kind), devices=devices[: data * model])
