"""A temperature for each kind of image: K-means on features of the images (arXiv 2303.11298).

Letters: I images, B images of a batch, S pixels, C classes, D features, K clusters.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.struct
import jax.numpy as jnp
import numpy as np

from car_jax.calibrate import base, temperature
from car_jax.calibrate.base import Sample
from car_jax.calibrate.temperature import flat, predicted
from car_jax.errors import UserError
from car_jax.typing import Array

WITHOUT = '  save them as an array `features`, or leave clusters out of config.calibrators'


class Clusters(flax.struct.PyTreeNode):
  """Logits divided by the temperature of the image's cluster: centroids [K, D], table [K] or
  [K, C].

  soft: by the mean of all clusters' temperatures instead, weighted by 1 / distance. Of a table with
  classes the predicted one counts; reference_compat as in temperature.PerClass.
  """

  centroids: Array
  table: Array
  soft: bool = flax.struct.field(pytree_node=False, default=False)
  reference_compat: bool = flax.struct.field(pytree_node=False, default=False)

  NEEDS = 'features'

  @property
  def temperatures(self) -> Array:
    return self.table

  def apply(
    self, logits: Array, *, image: Array | None = None, features: Array | None = None
  ) -> Array:
    if features is None:
      raise UserError(f'clusters need features of the images, and there are none\n{WITHOUT}')
    if features.shape[-1] != self.centroids.shape[-1]:
      raise UserError(
        f'the images have {features.shape[-1]} features; the clusters were found among '
        f'{self.centroids.shape[-1]}\n  fit clusters to this model'
      )
    table, spatial = jnp.asarray(self.table), (1,) * (logits.ndim - 2)
    if self.soft:
      own = closeness(features, self.centroids) @ table
    else:
      own = table[assign(features, self.centroids)]
    if own.ndim == 1:
      return logits / own.reshape(-1, *spatial, 1)
    if self.reference_compat:
      return logits / own.reshape(len(own), *spatial, -1)
    likeliest = jnp.argmax(logits, -1)
    picked = jnp.take_along_axis(own, likeliest.reshape(len(own), -1), 1)
    return logits / picked.reshape(*likeliest.shape, 1)


def distances(features: Array, centroids: Array) -> Array:
  """features [B, D], centroids [K, D] -> Euclidean distances [B, K]."""
  return jnp.linalg.norm(jnp.asarray(features)[:, None] - jnp.asarray(centroids), axis=-1)


def assign(features: Array, centroids: Array) -> Array:
  """The nearest centroid of each image [B], the first of equal ones."""
  return jnp.argmin(distances(features, centroids), -1)


def closeness(features: Array, centroids: Array) -> Array:
  """Weights [B, K] proportional to 1 / (distance + 1e-6), summing to one over K."""
  weight = 1 / (distances(features, centroids) + 1e-6)
  return weight / jnp.sum(weight, -1, keepdims=True)


def fit(
  sample: Sample,
  *,
  clusters: int = 8,
  seed: int = 0,
  objective: str = 'nll',
  grid: np.ndarray | None = None,
  soft: bool = False,
  per_class: bool = False,
  reference_compat: bool = False,
  centroids: np.ndarray | None = None,
) -> Clusters:
  """Clusters the images, unless `centroids` [K, D] are given, and fits each cluster's temperature.

  `clusters` -1 makes every image one; `seed` is that of k-means. per_class: a temperature for each
  predicted class of each cluster, 1 where there is no pixel. objective and grid: as in
  `temperature.best_temperature`. soft and reference_compat: as in `Clusters`.
  """
  if sample.features is None:
    raise UserError(f'clusters need features of the images, and the sample has none\n{WITHOUT}')
  if centroids is None and clusters == -1:
    centroids = sample.features
  elif centroids is None:
    centroids = k_means(sample.features, clusters, seed)
  centroids = np.asarray(centroids, np.float32)
  count, pixels = len(centroids), flat(sample)
  own = np.asarray(assign(sample.features, centroids))
  groups = np.repeat(own, sample.labels.shape[1])
  if per_class:
    groups = groups * sample.classes + predicted(pixels)
    count *= sample.classes
  temperatures = temperature.group_temperatures(pixels, groups, count, objective, grid)
  table = temperatures.reshape(len(centroids), *([sample.classes] if per_class else []))
  return Clusters(centroids, table.astype(np.float32), soft, reference_compat)


def k_means(features: np.ndarray, clusters: int, seed: int) -> np.ndarray:
  """features [I, D] -> centroids [K, D] by scikit-learn's mini-batch K-means, set as RELIS does."""
  if not 1 <= clusters <= len(features):
    raise UserError(
      f'{clusters} clusters of {len(features)} images\n  use clusters:{max(1, len(features) // 4)}'
    )
  from sklearn.cluster import MiniBatchKMeans

  model = MiniBatchKMeans(clusters, batch_size=2048, n_init=5, random_state=seed)
  return model.fit(np.asarray(features, np.float64)).cluster_centers_


class Sweep(NamedTuple):
  """Rows of clusters, seed, nll, ece, both held out; `best`: the K of least mean NLL."""

  rows: list[dict[str, Any]]
  best: int


def sweep(
  sample: Sample,
  ks: Sequence[int] = (4, 8, 16, 32),
  seeds: Sequence[int] = (42, 43, 44, 45, 46),
  *,
  folds: int = 5,
  **options: Any,
) -> Sweep:
  """Every number of clusters in `ks` with every seed, scored on held-out images, fold by fold.

  The folds are the same for all, so rows can be compared. `options` are those of `fit`.
  """
  if not 2 <= folds <= sample.images:
    raise UserError(f'{folds} folds of {sample.images} images\n  use 2 to {sample.images}')
  order = np.random.default_rng(0).permutation(sample.images)
  parts = np.array_split(order, folds)
  rows = [
    {'clusters': k, 'seed': seed} | _fold_scores(sample, parts, clusters=k, seed=seed, **options)
    for k in ks
    for seed in seeds
  ]
  mean = lambda k: np.mean([row['nll'] for row in rows if row['clusters'] == k])
  return Sweep(rows, min(ks, key=mean))


def fit_best(sample: Sample, *, seed: int = 0, ks: Sequence[int] = (4, 8, 16, 32)) -> Clusters:
  """`fit` with the number of clusters that is best on held-out images, see `sweep`.

  Raises UserError for a sample of fewer than five images, of which no number can be judged.
  """
  if sample.images < 5:
    raise UserError(f'clusters of {sample.images} images\n  use 5 and more, or a number: clusters2')
  folds = min(5, sample.images)
  least = sample.images - -(-sample.images // folds)  # images of the smallest training part
  known = [k for k in ks if k <= least] or [least]
  return fit(sample, clusters=sweep(sample, known, (seed,), folds=folds).best, seed=seed)


def _fold_scores(sample: Sample, parts: list[np.ndarray], **options: Any) -> dict[str, float]:
  """NLL and ECE, each fold's weighted by its pixels that count."""
  folds = []
  for i, part in enumerate(parts):
    rest = np.concatenate(parts[:i] + parts[i + 1 :])
    left_out = sample.take(np.sort(part))
    if weight := np.sum(left_out.labels >= 0):
      calibrator = fit(sample.take(np.sort(rest)), **options)
      folds.append((weight, *base.scores(left_out, calibrator)))
  weight, nll, ece = np.array(folds).T
  return {'nll': float(nll @ weight / weight.sum()), 'ece': float(ece @ weight / weight.sum())}
