"""What makes images on the devices: one program for all, an image's numbers its own.

Everything that is random in an image comes from a key of (seed, index, name), split per use, so
that no number depends on which images are made beside it, on how many devices, or when.
"""

import dataclasses
import functools
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from car_jax import ahead, sharding
from car_jax.interrupt import Interrupt

Array = jax.Array
Row = dict[str, np.ndarray]
USES = ('scene', 'place', 'noise', 'masked', 'again', 'masked_again', 'image_again')
"""What an image draws: the scene; a crop or a box; the noise of its latents; the posterior of the
masked picture; the same in a second pass, and there that of the whole picture."""


def keys(seed: int, index: int, name: str = '') -> dict[str, np.ndarray]:
  """Use -> the data of its key, uint32 [2]; `name` tells apart images of one index."""
  key = jax.random.fold_in(jax.random.key(seed), index)
  key = jax.random.fold_in(key, zlib.crc32(name.encode())) if name else key
  return dict(
    zip(USES, np.asarray(jax.random.key_data(jax.random.split(key, len(USES)))), strict=True)
  )


def host_rng(key: np.ndarray) -> np.random.Generator:
  """For what is drawn on the host: scenes, crops and boxes."""
  return np.random.default_rng([int(k) for k in key])


def normal(key_data: Array, shape: Sequence[int]) -> Array:
  """Key data [B, 2] -> [B, *shape] float32, each row from its own key."""
  draw = lambda key: jax.random.normal(jax.random.wrap_key_data(key), tuple(shape))
  return jax.vmap(draw)(key_data)


class Devices:
  """Parameters on all devices, and programs that make images with them.

  On a CPU every device makes one image at a time, whatever `batch` says: there more at once are no
  faster, and would change last digits. Others make `batch`. `size` is how many that is in all.
  """

  def __init__(self, params: Any, batch: int, stop: Interrupt):
    self.mesh, self.stop = sharding.make_mesh(), stop
    self.params = sharding.place_state(params, self.mesh)
    self.size = self.mesh.size * (1 if jax.default_backend() == 'cpu' else batch)

  def program(self, function: Callable[..., Any]) -> 'Program':
    """function(params, rows) -> arrays [B, ..], of rows {name: array [B, ..]}; made for jit."""
    split = PartitionSpec('data')
    specs: dict[str, Any] = dict(in_specs=(PartitionSpec(), split), out_specs=split)
    spread = jax.shard_map(function, mesh=self.mesh, check_vma=False, **specs)
    return Program(self, jax.jit(spread))


@dataclasses.dataclass
class Program:
  """Compiled once for each set of shapes."""

  devices: Devices
  jitted: Any
  compiled: dict[Any, Any] = dataclasses.field(default_factory=dict)

  def __call__(self, rows: Sequence[Row]) -> Any:
    """The outputs on the host, [len(rows), ..]; all rows have the same shapes. Raises Stopped."""
    size = self.devices.size
    parts = [self._run(rows[k : k + size]) for k in range(0, len(rows), size)]
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)

  def _run(self, rows: Sequence[Row]) -> Any:
    devices = self.devices
    padded = [*rows, *[rows[-1]] * (devices.size - len(rows))]
    batch = {name: np.stack([row[name] for row in padded]) for name in rows[0]}
    placed = sharding.place_batch(batch, devices.mesh)
    shapes = tuple((name, a.shape) for name, a in sorted(batch.items()))
    if shapes not in self.compiled:
      say = functools.partial(print, file=sys.stderr, flush=True)
      arguments = self.jitted, devices.params, placed
      self.compiled[shapes] = ahead.compiled(*arguments, stop=devices.stop, say=say)
    run = lambda: jax.device_get(self.compiled[shapes](devices.params, placed))
    return jax.tree.map(lambda a: a[: len(rows)], ahead.awaited(run, stop=devices.stop))


def cast(dtype: str | None) -> Any:
  """The type of parameters and activations: bfloat16 where there is none and an accelerator."""
  if dtype is None:
    dtype = 'float32' if jax.default_backend() == 'cpu' else 'bfloat16'
  return jnp.dtype(dtype)


def both(ids: Array) -> Array:
  """Tokens [B, 2, L] without and with the prompt -> [2 B, L], first all of those without."""
  return jnp.concatenate([ids[:, 0], ids[:, 1]])
