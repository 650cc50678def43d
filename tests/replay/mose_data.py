"""MoSE's label ids, modes, first expert means and LIDC split. Its class c + 1 is our class c."""

import jax.numpy as jnp
import numpy as np

from car_jax.data import labels
from car_jax.metrics import flips
from car_jax.nn import init
from datasets.lidc_v1.lidc_v1_dataset_builder import split_of
from tests.replay import Replay, replays


def theirs(ours) -> np.ndarray:
  return (np.asarray(ours, np.int64) + 1) % flips.NUM_CLASSES


@replays('mose', 'labels_and_splits')
def labels_and_splits(r: Replay) -> None:
  r.check('id_to_train_id', theirs(labels.LABEL_ID_TO_TRAIN_ID), 0)
  ours = labels.train_ids(r['raw_ids'])
  r.check('train_ids', theirs(ours), 0)
  r.check('modes', theirs(flips.modes(jnp.asarray(ours[None], jnp.int32))[0]), 0)
  r.check('mode_probs', flips.mode_weights(), 1e-7)
  r.check('flips', flips.mode_flips(), 0)
  r.check('eval_class_ids', theirs(flips.switchable()), 0)
  for key in r.arrays:
    kind, _, rest = key.partition('/')
    if kind == 'mu_init':
      shape = tuple(map(int, rest.partition('/')[0].split('_')))
      means = init.binary_codes(np.random.default_rng(0), shape, 0)
      r.check(key, means[: 2 ** shape[1]], 0)
    elif kind == 'split':
      count, split = rest.split('/')
      names = [f'{k:06d}' for k in range(int(count))]
      found = split_of(names)[{'val': 'validation'}.get(split, split)]
      r.check(key, np.array([int(name) for name in found]), 0)
