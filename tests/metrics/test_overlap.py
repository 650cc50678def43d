import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.metrics import overlap
from tests.metrics import oracle
from tests.whole import whole


def maps(seed, shape, classes=4):
  return np.random.default_rng(seed).integers(0, classes, shape).astype(np.int32)


@pytest.mark.parametrize('ignore', [None, 2])
@pytest.mark.parametrize('score', ['iou', 'dice'])
def test_every_pair_and_class_is_the_definition(ignore, score):
  a, b = maps(0, (2, 3, 5, 6)), maps(1, (2, 2, 5, 6))
  classes = (3, 0, 2)
  got = getattr(overlap, score)(whole(overlap.overlap)((a, b), classes, ignore))
  together = np.concatenate([a, b], 1)
  for i, j, k in np.ndindex(5, 5, 3):
    for image in range(2):
      want = oracle.pair(
        together[image, i], together[image, j], classes[k : k + 1], 'skip', ignore, score
      )
      np.testing.assert_allclose(got[image, i, j, k], want, atol=1e-6)


def test_blocks_and_their_remainder_do_not_change_the_counts(monkeypatch):
  a = maps(2, (1, 3, 30, 31))
  whole = overlap.overlap((a,), (1, 2), 3)
  monkeypatch.setattr(overlap, 'BLOCK', 128)  # seven blocks and 34 pixels left over
  for got, want in zip(overlap.overlap((a,), (1, 2), 3), whole, strict=True):
    np.testing.assert_array_equal(got, want)


def test_counts_of_a_whole_cityscapes_image_are_exact():
  a = jnp.ones((1, 1, 1024, 2047), jnp.uint8)
  b = a.at[0, 0, 17, 23].set(0)
  counts = whole(overlap.overlap)((a, b), (1,))
  total = 1024 * 2047
  np.testing.assert_array_equal(counts.both[0, :, :, 0], [[total, total - 1], [total - 1] * 2])
  np.testing.assert_array_equal(counts.first[0, :, 0, 0], [total, total - 1])


def test_memory_is_bounded_however_many_samples():
  """Never an array of images x samples x readers x pixels: here it would be 1.7 GB."""
  shape = jax.ShapeDtypeStruct((8, 100, 128, 128), jnp.int32)
  readers = jax.ShapeDtypeStruct((8, 32, 128, 128), jnp.int32)
  count = jax.jit(lambda s, y: overlap.overlap((y, s), (1,)))
  compiled = count.lower(shape, readers).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < 64 << 20


def test_the_second_map_decides_what_is_ignored():
  a, b = np.array([[[[1, 1, 2, 0]]]]), np.array([[[[1, 2, 2, 0]]]])
  counts = whole(overlap.overlap)((a, b), (1,), 2)
  assert counts.first[0, 0, 1, 0] == 1  # the pixel where b holds 2 is gone
  assert counts.first[0, 1, 0, 0] == 1
  assert whole(overlap.iou)(counts)[0, 0, 1, 0] == 1
  assert whole(overlap.iou)(counts)[0, 1, 0, 0] == 0.5
  both_ways = whole(overlap.mirrored)(whole(overlap.iou)(counts))
  assert both_ways[0, 1, 0, 0] == both_ways[0, 0, 1, 0] == 1


def test_iou_takes_a_prediction_and_a_label():
  a, b = maps(3, (3, 4, 5)), maps(4, (3, 4, 5))
  counts = whole(overlap.overlap)((a[:, None], b[:, None]), (0, 1, 3), 3)
  got = whole(overlap.iou)(counts)[:, 0, 1]
  for image, (k, name) in itertools.product(range(3), enumerate((0, 1, 3))):
    want = oracle.pair(a[image], b[image], (name,), 'skip', 3)
    np.testing.assert_allclose(got[image, k], want, atol=1e-6)


def test_class_mean_of_absent_classes():
  values = jnp.array([[0.5, jnp.nan], [jnp.nan, jnp.nan]])
  np.testing.assert_allclose(overlap.class_mean(values, 'one'), [0.75, 1])
  np.testing.assert_allclose(overlap.class_mean(values, 'skip'), [0.5, np.nan])
  np.testing.assert_allclose(overlap.class_mean(values, 'zero'), [0.25, 0])
  with pytest.raises(ValueError, match="not 'half'"):
    overlap.class_mean(values, 'half')
