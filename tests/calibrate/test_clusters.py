"""Clusters of images, each with its temperature."""

import jax
import numpy as np
import pytest

from car_jax.calibrate import clusters, temperature
from car_jax.calibrate.base import Sample
from car_jax.errors import UserError
from tests.calibrate.test_temperature import drawn
from tests.metrics import published

I, S, C = 24, 200, 4
TRUE = np.array([1.0, 2.0, 4.0], np.float32)


def make_sample():
  """Three kinds of images, far apart in features, each too sure by a factor of its own."""
  rng = np.random.default_rng(0)
  kind = np.arange(I) % 3
  logits, labels = drawn(I * S, C, seed=8)
  logits = logits.reshape(I, S, C) * TRUE[kind][:, None, None]
  features = np.eye(3)[kind] * 9 + rng.normal(0, 0.1, (I, 3))
  return Sample(logits, labels.reshape(I, S), features.astype(np.float32)), kind


SAMPLE, KIND = make_sample()


def test_every_kind_of_image_gets_its_temperature():
  found = clusters.fit(SAMPLE, clusters=3, seed=1)
  own = np.asarray(clusters.assign(SAMPLE.features, found.centroids))
  assert [len({*own[k == KIND]}) for k in range(3)] == [1, 1, 1]
  np.testing.assert_allclose(found.table[own], TRUE[KIND], rtol=0.15)
  for k in range(3):
    alone = temperature.fit(SAMPLE.take(np.flatnonzero(k == KIND)))
    assert found.table[own[k]] == pytest.approx(float(alone.temperature), rel=1e-5)
  scaled = found.apply(SAMPLE.logits, features=SAMPLE.features)
  np.testing.assert_allclose(scaled, SAMPLE.logits / found.table[own][:, None, None], rtol=1e-6)


def test_a_soft_temperature_lies_between():
  centroids, table = np.array([[0.0, 0.0], [3.0, 0.0]], np.float32), np.array([1, 4], np.float32)
  found = clusters.Clusters(centroids, table, soft=True)
  logits = np.ones((2, 1, 3), np.float32)
  got = found.apply(logits, features=np.array([[1, 0], [3, 0]], np.float32))
  np.testing.assert_allclose(1 / got[:, 0, 0], [2, 4], rtol=1e-5)  # (2 * 1 + 1 * 4) / 3, then 4


@pytest.mark.parametrize('soft', [False, True])
def test_tables_with_classes(soft):
  found = clusters.fit(SAMPLE, clusters=3, per_class=True, soft=soft)
  assert found.table.shape == (3, C)
  if soft:
    d = np.linalg.norm(SAMPLE.features[:, None] - found.centroids, axis=-1)
    w = 1 / (d + 1e-6)
    own = (w / w.sum(1, keepdims=True)) @ found.table
  else:
    groups = np.asarray(clusters.assign(SAMPLE.features, found.centroids))
    own = found.table[groups]
    k, c = groups[0], 2
    inside = (groups[:, None] == k) & (SAMPLE.logits.argmax(-1) == c)
    pixels = temperature.Pixels(SAMPLE.logits[inside], SAMPLE.labels[inside])
    assert found.table[k, c] == pytest.approx(temperature.nll_temperature(pixels), rel=1e-5)
  said = SAMPLE.logits.argmax(-1)
  picked = np.take_along_axis(own, said, 1)[..., None]
  apply = jax.jit(lambda c: c.apply(SAMPLE.logits, features=SAMPLE.features))
  np.testing.assert_allclose(apply(found), SAMPLE.logits / picked, rtol=2e-6)
  published = apply(found.replace(reference_compat=True))
  np.testing.assert_allclose(published, SAMPLE.logits / own[:, None], rtol=2e-6)


def test_the_seed_decides_and_centroids_may_be_given():
  first, again = (clusters.fit(SAMPLE, clusters=4, seed=5) for _ in range(2))
  np.testing.assert_array_equal(first.centroids, again.centroids)
  given = clusters.fit(SAMPLE, centroids=SAMPLE.features[:2])
  np.testing.assert_array_equal(given.centroids, SAMPLE.features[:2])
  each = clusters.fit(SAMPLE, clusters=-1)
  np.testing.assert_array_equal(each.centroids, SAMPLE.features)
  with pytest.raises(UserError, match='need features .*\n.*out of config.calibrators'):
    given.apply(SAMPLE.logits)
  with pytest.raises(UserError, match='have 2 features; the clusters were found among 3'):
    given.apply(SAMPLE.logits, features=SAMPLE.features[:, :2])


def test_features_of_maps():
  maps = np.random.default_rng(2).random((2, 3, 4, 5)).astype(np.float32)
  want = maps.sum((1, 2)) / maps.sum((1, 2)).max(-1, keepdims=True)
  np.testing.assert_allclose(published.pooled(maps), want, rtol=1e-6)


def test_a_sweep_chooses_the_number_of_kinds():
  found = clusters.sweep(SAMPLE, (1, 3), (0, 1), folds=3)
  assert [(row['clusters'], row['seed']) for row in found.rows] == [(1, 0), (1, 1), (3, 0), (3, 1)]
  assert found.best == 3
  nll = [row['nll'] for row in found.rows]
  assert max(nll[2:]) < min(nll[:2])
  with pytest.raises(UserError, match='25 folds of 24 images'):
    clusters.sweep(SAMPLE, (1,), (0,), folds=25)


def test_a_sweep_scores_images_that_were_left_out():
  found = clusters.sweep(SAMPLE, (1,), (0,), folds=4)
  order = np.random.default_rng(0).permutation(I)
  want = []
  for part in np.array_split(order, 4):
    rest = np.setdiff1d(np.arange(I), part)
    pixels = temperature.Pixels(SAMPLE.logits[rest].reshape(-1, C), SAMPLE.labels[rest].reshape(-1))
    z = SAMPLE.logits[part].astype(np.float64) / temperature.nll_temperature(pixels)
    logp = z - np.log(np.exp(z).sum(-1, keepdims=True))
    want.append(-np.take_along_axis(logp, SAMPLE.labels[part][..., None], -1).mean())
  assert found.rows[0]['nll'] == pytest.approx(np.mean(want), rel=1e-5)


def test_clusters_without_a_number_are_as_many_as_is_best_on_held_out_images():
  found = clusters.fit_best(SAMPLE, seed=0, ks=(1, 3))
  want = clusters.fit(SAMPLE, clusters=3, seed=0)
  np.testing.assert_array_equal(found.table, want.table)
  with pytest.raises(UserError, match='clusters of 4 images'):
    clusters.fit_best(SAMPLE.take(np.arange(4)))
