"""Random class flips of any data set: numbers, frequencies, the black box, and mistakes."""

import numpy as np
import pytest

from car_jax.data import class_flips, compact, labels, opening, pipeline
from car_jax.data.sources import DataInfo, Dataset, Listed
from car_jax.errors import UserError
from car_jax.metrics import flips

CITY = 'sidewalk:8/17,person:7/17,car:6/17,vegetation:5/17,road:4/17'


def city(count=4, black_box=True) -> Dataset:
  """Cityscapes' classes at random, 255 for pixels without one."""
  info = DataInfo(
    name='city',
    num_classes=19,
    class_names=labels.CLASS_NAMES[:19],
    palette=labels.PALETTE[:19],
    readers=1,
    ignore_label=255,
    black_box=black_box,
  )
  rng = np.random.default_rng(0)
  draw = lambda: rng.choice([0, 1, 8, 11, 13, 5, 255], (8, 8)).astype(np.uint8)
  records = [
    dict(image=np.zeros((8, 8, 3), np.uint8), labels=draw()[None], id=f'{i}', group=f'{i}')
    | (dict(black_box=draw()) if black_box else {})
    for i in range(count)
  ]
  return Dataset(info, lambda split: Listed(records))


def test_the_published_numbers_of_cityscapes():
  info = class_flips.flipped(city(), CITY).info
  assert info.flips == flips.FLIPS
  assert (info.num_classes, info.ignore_label, info.readers) == (25, 24, 32)
  assert info.class_names == labels.CLASS_NAMES
  assert info.palette == labels.PALETTE


def test_a_data_set_without_ignored_pixels_and_one_flip():
  data = opening.open_dataset(
    dict(name='fake', readers=1, num_classes=3, class_flips='disc 2 : .25', size=16)
  )
  assert data.info.flips == (flips.Flip(2, 3, 0.25),)
  assert data.info.class_names == ('background', 'disc 1', 'disc 2', 'disc 2 2')
  assert data.info.ignore_label is None
  batch = next(pipeline.eval_batches(data.split('test'), data.info, {'batch': 2}))
  base = np.asarray(data.split('test')[0]['labels'][0])
  np.testing.assert_array_equal(batch['labels'][0, 0], base)
  np.testing.assert_array_equal(batch['labels'][0, 1], np.where(base == 2, 3, base))
  np.testing.assert_allclose(batch['label_weight'][0], [0.75, 0.25])


def test_batches_hold_every_mode_with_its_weight_and_the_black_box_of_the_label():
  data = class_flips.flipped(city(), CITY)
  plain = city().split('test')
  batch = next(pipeline.eval_batches(data.split('test'), data.info, {'batch': 4}))
  for b, record in enumerate(plain):
    base = np.where(record['labels'][0] == 255, 24, record['labels'][0])
    want = np.asarray(flips.modes(base[None].astype(np.int32)))[0]
    np.testing.assert_array_equal(batch['labels'][b], want)
    box = np.where((base == 24) | (record['black_box'] == 255), 24, record['black_box'])
    np.testing.assert_array_equal(batch['black_box'][b], box)
  np.testing.assert_allclose(batch['label_weight'], [flips.mode_weights()] * 4, rtol=1e-6)
  assert 'label' not in batch


@pytest.mark.parametrize('told', [True, False])
def test_training_draws_modes_by_their_weight_and_flips_the_black_box_if_told(told):
  data = class_flips.flipped(city(), CITY)
  config = dict(batch=4, class_flip_black_box=told, threads=0)
  stream = pipeline.train_batches(data.split('train'), data.info, config, seed=0)
  counts, boxes, joint = np.zeros((5, 2)), np.zeros((5, 2)), []
  for _ in range(300):
    batch = compact.expanded(next(stream))
    for label, box in zip(batch['label'], batch['black_box'], strict=True):
      seen = [[(x == f.base).any(), (x == f.twin).any()] for x in (label, box) for f in flips.FLIPS]
      counts += seen[:5]
      boxes += seen[5:]
      joint.append((seen[0][1], seen[5][1]))
  want = [f.probability for f in flips.FLIPS]
  assert counts.sum(1) == pytest.approx(1200, abs=0)  # never both names in one image
  np.testing.assert_allclose(counts[:, 1] / 1200, want, atol=0.05)
  if not told:
    assert not boxes[:, 1].any()
    return
  np.testing.assert_allclose(boxes[:, 1] / 1200, want, atol=0.05)
  assert abs(np.corrcoef(np.transpose(joint))[0, 1]) < 0.1  # rolls of its own


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('sidewalc:1/2', "unknown class 'sidewalc'\n.*did you mean: sidewalk"),
    ('sidewalk', "cannot read 'sidewalk'.*\n.*such as sidewalk:8/17"),
    ('car:17/17', r"of 'car' is 17/17, not in \(0, 1\)"),
    ('car:1/0', r"of 'car' is 1/0, not in \(0, 1\)"),
    ('car:1/2,car:1/3', 'each class once'),
    (','.join(f'{n}:1/2' for n in labels.CLASS_NAMES[:9]), 'at most 8'),
  ],
)
def test_mistakes(text, message):
  with pytest.raises(UserError, match=message):
    class_flips.flipped(city(), text)


def test_several_readers_cannot_be_flipped():
  with pytest.raises(UserError, match='one label per image; fake has 4'):
    opening.open_dataset(dict(name='fake', class_flips='disc 1:1/2'))
