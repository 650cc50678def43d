"""MoSE's label ids, modes, first expert means and LIDC split. Its class c + 1 is our class c."""

import jax.numpy as jnp
import numpy as np

from car_jax.data import labels, transforms
from car_jax.datasets.lidc_v1.lidc_v1_dataset_builder import split_of
from car_jax.metrics import flips
from car_jax.nn import init
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


@replays('mose', 'augment')
def augment(r: Replay) -> None:
  """Turns, flips and crops with the recorded parameters."""
  still = lambda key: np.moveaxis(r[key], 0, -1)
  chw = lambda x: np.moveaxis(np.asarray(x), -1, 0)
  turned = {'image': False, 'label': True, 'one_label': True}
  for k, angle in enumerate(r['rot/angle']):
    for kind, nearest in turned.items():
      source = still('rot/image' if kind == 'image' else 'rot/label')
      count = r.arrays[f'rot/{kind}_out'].shape[1]
      ours = transforms.rotated(source[..., :count], float(angle), nearest=nearest)
      want = r[f'rot/{kind}_out'][k]
      r.check(f'rot/{kind}_out', chw(ours), 0 if nearest else 1e-4, want=want, name=f'{kind}[{k}]')
  r.check('flip/h', r['rot/image'][:, :, ::-1], 0)
  r.check('flip/v', r['rot/image'][:, ::-1], 0)
  size = int(r['crop/imsize'])
  r['crop/scales']
  for case in sorted({key.split('/')[1] for key in r.arrays if key.endswith('/args')}):
    h, w, top, left = (int(n) for n in r[f'crop/{case}/args'])
    cut = lambda kind, h=h, w=w, top=top, left=left: still(f'crop/{kind}')[
      top : top + h, left : left + w
    ]
    rows, columns = (transforms.nearest_indices(n, size) for n in (h, w))
    r.check(f'crop/{case}/image_out', chw(transforms.area_resized(cut('image'), size)), 1e-4)
    for kind in ('label', 'bb'):
      r.check(f'crop/{case}/{kind}_out', chw(cut(kind)[rows[:, None], columns]), 0)
  h, w, top, left = (int(n) for n in r['crop/val_args'])
  r.check('crop/val_image', chw(still('crop/image')[top : top + h, left : left + w]), 0)
