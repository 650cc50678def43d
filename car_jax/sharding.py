"""One mesh axis, `data`: the batch is split over it, everything else is replicated, or with
config.fsdp the large arrays of the state are split over it too.

The same code runs on one CPU, eight GPUs or the hosts of a TPU pod slice. Under jit a batch norm
then sees the statistics of the *global* batch, as synchronised batch norm does.
"""

import collections
import functools
import math
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from car_jax.data import compact
from car_jax.errors import UserError, reason, report

PATIENCE = 300.0  # seconds that the others have to start
HEARTBEAT = 25  # seconds without an answer after which jaxlib takes a process for dead
LONGEST = 24 * 3600  # seconds that who is done waits for the others, such as for a report
SHARDED_FROM = 4_096  # numbers of an array


def make_mesh() -> Mesh:
  return Mesh(np.array(ordered(jax.devices())), ('data',))


def ordered(devices: Sequence[Any]) -> list[Any]:
  """The devices of each process side by side, as its rows of a batch are; a process's TPU chips
  from neighbour to neighbour.

  In the order of their ids, those of several hosts may interleave.
  """

  def place(device: Any) -> tuple[int, ...]:
    if device.platform != 'tpu':
      return device.process_index, device.id
    x, y, z = device.coords
    there_and_back = z, -y if z % 2 else y, -x if (y + z) % 2 else x
    return device.process_index, *there_and_back, device.core_on_chip

  return sorted(devices, key=place)


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec('data'))


def say(text: str, file: Any = None) -> None:
  """Prints a line, on the first process alone."""
  if jax.process_index() == 0:
    print(text, file=file, flush=True)


def barrier(name: str) -> None:
  """Waits until every process is here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def gathered(number: int) -> np.ndarray:
  """Each process's number; all of them must ask."""
  if jax.process_count() == 1:
    return np.array([number])
  return np.asarray(multihost_utils.process_allgather(np.int32(number)))


def all_agree(yes: bool) -> bool:
  """Whether every process says yes; all of them must ask."""
  return bool(np.min(gathered(int(yes))))


def place_batch(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
  """This process's rows -> global arrays split over the mesh; text (such as ids) stays behind.

  They travel as bytes and are expanded on the devices (data/compact.py).
  What a single process has on a device already does not go through the host.
  """
  sharding = split(mesh)
  place = functools.partial(jax.make_array_from_process_local_data, sharding)
  return _expanded({k: place(v) for k, v in compact.numbers(batch).items()}, sharding)


def place_whole(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """A batch that is the same on every process -> global arrays, all of it on every device."""
  return _expanded(place_state(compact.numbers(batch), mesh), replicated(mesh))


def _expanded(placed: dict[str, jax.Array], sharding: NamedSharding) -> dict[str, jax.Array]:
  return _expansion(sharding)(placed) if compact.is_compact(placed) else placed


@functools.cache
def _expansion(sharding: NamedSharding) -> Any:
  return jax.jit(compact.expand, out_shardings=sharding)


def of_state(state: Any, mesh: Mesh, fsdp: bool) -> Any:
  """The sharding of every array of a state; with `fsdp` those of SHARDED_FROM numbers or more are
  split along their largest axis that the devices share equally, if there is one."""

  def of_array(a: Any) -> NamedSharding:
    shape = np.shape(a)
    divides = [k for k, side in enumerate(shape) if side % mesh.size == 0]
    if not fsdp or not divides or math.prod(shape) < SHARDED_FROM:
      return replicated(mesh)
    axis = max(divides, key=lambda k: shape[k])
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, 'data'))

  return jax.tree.map(of_array, state)


def place_state(state: Any, mesh: Mesh, fsdp: bool = False) -> Any:
  """A host pytree, the same on every process -> global arrays; see `of_state`."""

  def put(a: Any, sharding: NamedSharding) -> jax.Array:
    a = np.asarray(a)
    return jax.make_array_from_callback(a.shape, sharding, lambda index: a[index])

  return jax.tree.map(put, state, of_state(state, mesh, fsdp))


def bytes_per_device(state: Any) -> int:
  """Of placed arrays."""
  size = lambda a: math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize
  return sum(map(size, jax.tree.leaves(state)))


def fetched(a: Any) -> np.ndarray:
  """An array of a placed state, whole, on every process; all of them must ask."""
  if isinstance(a, jax.Array) and not (a.is_fully_addressable or a.is_fully_replicated):
    return multihost_utils.process_allgather(a, tiled=True)
  return jax.device_get(a)


def parts(a: Any) -> list[np.ndarray]:
  """What this process has of an array, each part once."""
  shards = a.addressable_shards if isinstance(a, jax.Array) else ()
  return [np.asarray(x) for x in {str(s.index): s.data for s in shards}.values()] or [np.asarray(a)]


def start_distributed(coordinator: str | None, processes: int | None, process: int | None) -> None:
  """Joins the other processes; what is None the cluster (TPU pod, SLURM, ..) tells.

  Raises UserError where no cluster tells it, where nobody answers at `coordinator`, and where its
  port is taken. Ends the process where the others do not come: jax's own end is a C++ trace.
  """
  if jax.config.jax_platforms == 'cpu':  # type: ignore[attr-defined]
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  if coordinator and process:  # jax's own wait ends the process
    _wait_for(coordinator)
  elif coordinator:
    _check_free(coordinator)
  alone = threading.Timer(PATIENCE, _end_alone, [processes])
  alone.daemon = True
  alone.start()
  try:
    jax.distributed.initialize(
      coordinator,
      processes,
      process,
      initialization_timeout=int(PATIENCE) + 60,
      heartbeat_timeout_seconds=HEARTBEAT,
      shutdown_timeout_seconds=LONGEST,
    )
  except ValueError as e:
    flags = '--coordinator HOST:PORT --processes N --process K'
    raise UserError(
      f'no cluster tells who the other processes are ({reason(e)})\n'
      f'  start it by srun, mpirun or on each host of a pod slice, or give {flags}'
    ) from None
  finally:
    alone.cancel()
  _check_equal(jax.devices())


def _check_equal(devices: Sequence[Any]) -> None:
  """Raises UserError where processes have different numbers of devices: shares are equal."""
  count = collections.Counter(d.process_index for d in devices)
  if len({*count.values()}) > 1:
    each = ', '.join(f'process {k} has {n}' for k, n in sorted(count.items()))
    raise UserError(
      f'processes have different numbers of devices: {each}\n'
      '  give each the same number, such as by CUDA_VISIBLE_DEVICES'
    )


def _check_free(address: str) -> None:
  """Raises UserError where somebody listens at the port that process 0 is to listen at."""
  port = int(address.rpartition(':')[2])
  with socket.socket() as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of a run that has just ended
    try:
      probe.bind(('', port))
    except OSError as e:
      raise UserError(
        f'port {port} of --coordinator {address}: {e.strerror}\n'
        '  name another one, such as that of a run beside this, for all processes'
      ) from None


def _end_alone(processes: int | None) -> None:
  others = 'the other processes are' if processes is None else f'all {processes} processes are'
  error = UserError(
    f'not {others} here after {PATIENCE:.0f} s\n  were they started, and can they reach process 0?'
  )
  report(error)
  os._exit(2)


def _wait_for(address: str) -> None:
  """Until somebody listens at HOST:PORT. Raises UserError after PATIENCE seconds."""
  host, _, port = address.rpartition(':')
  last = time.monotonic() + PATIENCE
  while True:
    try:
      socket.create_connection((host, int(port)), timeout=PATIENCE).close()
      return
    except OSError as e:
      if time.monotonic() > last:
        raise UserError(
          f'no process 0 at --coordinator {address} within {PATIENCE:.0f} s ({reason(e)})\n'
          '  is it started, and the port open?'
        ) from None
    time.sleep(0.2)
