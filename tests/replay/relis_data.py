"""RELIS's augmentations and label maps (arXiv 2303.11298) against the recorded ones."""

import numpy as np

from car_jax.data import augmentation, labels
from tests.replay import Replay, replays


def turns(name: str) -> bool:
  return name.startswith('rotate')


@replays('relis', 'transforms')
def operations(r: Replay) -> None:
  image = r['image']
  for name, (operation, levels) in augmentation.OPERATIONS.items():
    if levels is None:
      ours = operation(image)
    else:
      given = r[f'{name}_levels']
      draws = r[f'{name}_draws'] if f'{name}_draws' in r else [None] * len(given)
      ours = [operation(image, level, d) for level, d in zip(given, draws, strict=True)]
    r.check(f'{name}_out', ours, 1 if turns(name) else 0)


@replays('relis', 'transforms')
def compositions(r: Replay) -> None:
  image, found = r['image'], {'ops': [], 'levels': [], 'rgb_draws': [], 'out': []}
  for seed in r['compose_seeds']:
    rng = np.random.RandomState(seed)
    count = r['compose_ops'].shape[1]
    names, levels, draws = augmentation.drawn(rng, image.shape, count=count)
    found['ops'].append([augmentation.COLOUR.index(n) for n in names])
    found['levels'].append([-1 if level is None else level for level in levels])
    found['rgb_draws'].append([np.zeros(3) if d is None else d for d in draws])
    found['out'].append(augmentation.composed(image, names, levels, draws))
  for key, ours in found.items():
    r.check(f'compose_{key}', ours, 1e-5 if key == 'levels' else 0)


@replays('relis', 'segmentation')
def label_maps(r: Replay) -> None:
  maps = {'cityscapes': labels.scored_train_ids, 'idd': labels.idd_train_ids}
  for name, to_train_ids in maps.items():
    r.check(f'{name}_train_ids', to_train_ids(r[f'{name}_label_ids']), 0)
