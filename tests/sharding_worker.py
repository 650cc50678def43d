"""Three steps of a method at toy size, on this process's devices; prints nothing, writes an npz.

python -m tests.sharding_worker OUT VARIANT [COORDINATOR PROCESSES PROCESS]

VARIANT+fsdp shares arrays of 64 numbers and more among the devices, and saves the state beside OUT.

Run by tests/test_sharding.py with other XLA_FLAGS, and several at once for several processes.
"""

import pathlib
import sys

import jax
import numpy as np

from car_jax import checkpoints, loop, sharding
from car_jax import config as configs
from car_jax.data import compact, opening, pipeline
from car_jax.methods.train_state import nets


def double(tree):
  """In float64: what float32's rounding does to gradients after a few batch norms says nothing
  about devices, and Adam makes a full step of the sign of a gradient that is zero but for it."""
  wide = lambda x: np.asarray(x, np.float64) if np.asarray(x).dtype == np.float32 else x
  return jax.tree.map(wide, tree)


def main(out: str, variant: str, *cluster: str) -> None:
  if cluster:
    jax.config.update('jax_platforms', 'cpu')
    sharding.start_distributed(cluster[0], int(cluster[1]), int(cluster[2]))
  variant, _, fsdp = variant.partition('+')
  config = configs.load(f'tests/small.py:{variant}')
  config.fsdp, sharding.SHARDED_FROM = bool(fsdp), 64
  if 'rest_steps' in config.method:
    config.method.rest_steps = 0  # every step learns in all nets: one program to compile
  mesh = sharding.make_mesh()
  dataset = opening.open_dataset(config.data)
  source = dataset.split(config.data.get('train', 'train'))
  method = loop.build_method(config, dataset.info, len(source))
  here = dict(host=jax.process_index(), hosts=jax.process_count())
  batches = pipeline.train_batches(source, dataset.info, config.data, seed=0, start_step=0, **here)
  run = loop.Run(config, '', mesh, dataset, method)
  state, losses, first = None, [], None
  for done in range(3):
    batch = double(compact.expanded(next(batches)))
    if state is None:
      fresh = double(method.init(0, batch))
      first, state = arrays(fresh), sharding.place_state(fresh, mesh, config.fsdp)
    batch = sharding.place_batch(batch, mesh)
    state, logs = run.program(done, state, batch)(state, batch)
    losses.append([float(logs[k]) for k in sorted(logs) if k.startswith('loss/')])
  batches.close()
  if fsdp:
    save(state, pathlib.Path(out).with_suffix(''))
  state = jax.tree.map(sharding.fetched, state)
  if jax.process_index() == 0:
    after = arrays(state)
    still = tuple(f"['{part}']" for part in method.given_parts)
    learnt = [k for k in after if 'params' in k and not k.startswith(still)]
    moved = [np.abs(after[k] - first[k]).max() for k in learnt]
    np.savez(out, losses=np.array(losses), devices=jax.device_count(), moved=moved, **after)


def save(state, folder: pathlib.Path) -> None:
  """A checkpoint. Raises AssertionError unless each device holds a part of the large arrays."""
  large = [x for x in jax.tree.leaves(state) if x.size >= sharding.SHARDED_FROM]
  shared = [x for x in large if not x.is_fully_replicated]
  assert shared
  assert all(x.addressable_shards[0].data.size * jax.device_count() == x.size for x in shared)
  assert sharding.bytes_per_device(state) < sum(x.nbytes for x in jax.tree.leaves(state))
  with checkpoints.Checkpoints(folder, 1) as saved:
    saved.save(3, state, dict(config={}))


def arrays(state) -> dict[str, np.ndarray]:
  """What a step leaves, by path, but for the optimizers' moments."""
  kept = {k: v for k, v in vars(state).items() if k != 'step'}
  kept |= {name: net.variables for name, net in nets(state).items()}
  leaves, _ = jax.tree_util.tree_flatten_with_path(kept)
  return {jax.tree_util.keystr(path): np.array(leaf) for path, leaf in leaves}


if __name__ == '__main__':
  jax.config.update('jax_enable_x64', True)
  main(*sys.argv[1:])
