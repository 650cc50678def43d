"""One mesh axis, `data`: the batch is split over it, everything else is replicated.

The same code runs on one CPU, eight GPUs or the hosts of a TPU pod slice. Under jit a batch norm
then sees the statistics of the *global* batch, as synchronised batch norm does.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from car_jax.errors import UserError


def make_mesh() -> Mesh:
  return Mesh(np.array(jax.devices()), ('data',))


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec('data'))


def check_batch(batch: int, mesh: Mesh) -> None:
  """Raises UserError unless the global batch divides over the mesh."""
  n = mesh.size
  if batch < 1 or batch % n:
    near = sorted({max(n, batch // n * n), -(-batch // n) * n})
    raise UserError(
      f'a batch of {batch} cannot be split over {n} devices\n'
      f'  use --config.data.batch={" or ".join(map(str, near))}'
    )


def place_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """This process's rows -> global arrays split over the mesh; text (such as ids) stays behind."""
  sharding = split(mesh)
  return {
    key: jax.make_array_from_process_local_data(sharding, value)
    for key, value in batch.items()
    if np.asarray(value).dtype.kind in 'biuf'
  }


def place_state(state: Any, mesh: Mesh) -> Any:
  """A host pytree, the same on every process -> replicated global arrays."""
  sharding = replicated(mesh)
  put = lambda a: jax.make_array_from_process_local_data(sharding, np.asarray(a))
  return jax.tree.map(put, state)


def start_distributed(coordinator: str | None, processes: int | None, process: int | None) -> None:
  """Joins the other processes; without arguments the cluster (TPU pod, SLURM) tells who."""
  if jax.config.jax_platforms == 'cpu':
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(coordinator, processes, process)
