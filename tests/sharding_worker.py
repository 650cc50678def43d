"""Three steps of a method at toy size, on this process's devices; prints nothing, writes an npz.

python -m tests.sharding_worker OUT VARIANT [COORDINATOR PROCESSES PROCESS]

Run by tests/test_sharding.py with other XLA_FLAGS, and several at once for several processes.
"""

import sys

import jax
import numpy as np

from car_jax import config as configs
from car_jax import loop, sharding
from car_jax.data import pipeline, sources


def main(out: str, variant: str, *cluster: str) -> None:
  if cluster:
    jax.config.update('jax_platforms', 'cpu')
    sharding.start_distributed(cluster[0], int(cluster[1]), int(cluster[2]))
  config = configs.load(f'configs/smoke.py:{variant}')
  mesh = sharding.make_mesh()
  dataset = sources.open_dataset(config.data)
  source = dataset.split('train')
  method = loop.build_method(config, dataset.info, len(source))
  here = dict(host=jax.process_index(), hosts=jax.process_count())
  batches = pipeline.train_batches(source, dataset.info, config.data, seed=0, start_step=0, **here)
  run = loop.Run(config, '', mesh, dataset, method)
  state, losses = None, []
  for done in range(3):
    batch = next(batches)
    if state is None:
      state = sharding.place_state(method.init(0, batch), mesh)
    state, logs = run.step(done, state, sharding.place_batch(batch, mesh))
    losses.append([float(logs[k]) for k in sorted(logs) if k.startswith('loss/')])
  batches.close()
  if jax.process_index() == 0:
    parts = {
      f: getattr(state, f).params for f in vars(state) if hasattr(getattr(state, f), 'params')
    }
    leaves, _ = jax.tree_util.tree_flatten_with_path(parts)
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    np.savez(out, losses=np.array(losses), devices=jax.device_count(), **arrays)


if __name__ == '__main__':
  main(*sys.argv[1:])
