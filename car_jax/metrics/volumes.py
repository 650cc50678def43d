"""Is the predicted volume one of the readers'? CRPS of volumes; what all readers agree on.

Letters: M readers, N samples; leading axes are free. Volumes of images are areas; their unit is the
caller's: pixels, voxels, or times the size of one. On the host, in float64, but for `crps_for_one`,
which takes any arrays.
"""

import numpy as np
from jaxtyping import Float, Real
from scipy import stats

from car_jax.metrics.confusion_matrix import ratio
from car_jax.typing import Array


def crps(samples: np.ndarray, readers: np.ndarray, *, estimator: str = 'v') -> np.ndarray:
  """The samples' volumes [.., N] as a forecast of each reader's [.., M]: mean over readers.

  mean |V_s - v_m| - mean |V_s - V_s'| / 2, a proper score for each reader; 'v' counts the pairs of
  a sample with itself, 'u' does not, which is nan for one sample.
  """
  samples, readers = np.asarray(samples, np.float64), np.asarray(readers, np.float64)
  each = crps_for_one(samples[..., None, :], readers, _equal(samples), estimator=estimator)
  return np.mean(each, -1)


def crps_for_one(
  samples: Real[Array, '*#at N'],
  reader: Real[Array, '*#at'],
  weight: Float[Array, '*#at N'],
  *,
  estimator: str = 'v',
) -> Float[Array, '*at']:
  """The same for one reader and samples with weights, which sum to one; of numpy or jax, as given.

  'u' divides by the weight of pairs of two samples: 1 - sum w^2.
  """
  apart = (weight * abs(samples - reader[..., None])).sum(-1)
  return apart - _spread(samples, weight, estimator) / 2


def energy(samples: np.ndarray, readers: np.ndarray, *, estimator: str = 'v') -> np.ndarray:
  """2 mean |V_s - v_m| - mean |V_s - V_s'| - mean |v_m - v_m'|: GED of volumes."""
  samples, readers = np.asarray(samples, np.float64), np.asarray(readers, np.float64)
  return 2 * crps(samples, readers, estimator=estimator) - _spread(
    readers, _equal(readers), estimator
  )


def curvas_crps(predicted: np.ndarray, readers: np.ndarray, *, form: str = 'closed') -> np.ndarray:
  """CRPS of CURVAS: a normal distribution around the readers' volumes [.., M] as the forecast.

  The predicted volume [..] (the sum of probabilities) is its observation, so the roles are those of
  the reader and the model turned round: no proper score of the model, for comparison alone.
  form 'closed' is the CRPS; 'curvas' integrates over mean +- 3 deviations only, as the challenge
  does: 0 where readers agree however wrong the model is, and no more than so much if it is far off.
  """
  readers, x = np.asarray(readers, np.float64), np.asarray(predicted, np.float64)
  mean, deviation = readers.mean(-1), readers.std(-1)
  wide = np.where(deviation > 0, deviation, 1.0)
  if form == 'closed':
    z = (x - mean) / wide
    cdf, pdf = stats.norm.cdf(z), stats.norm.pdf(z)
    value = wide * (z * (2 * cdf - 1) + 2 * pdf - 1 / np.sqrt(np.pi))
    return np.where(deviation > 0, value, np.abs(x - mean))
  if form == 'curvas':
    z = ((x - mean) / wide)[..., None]
    grid = np.linspace(-3, 3, 20_001)
    ends = stats.norm.ppf(np.linspace(0.01, 0.99, 100))
    cdf = np.interp(grid, ends, stats.norm.cdf(ends), left=0, right=1)
    return deviation * np.trapezoid((cdf - (grid >= z)) ** 2, grid, axis=-1)
  raise ValueError(f"form must be 'closed' or 'curvas', not {form!r}")


def consensus_dice(readers: np.ndarray, predicted: np.ndarray, class_id: int) -> float:
  """Dice of one class over the pixels where all readers agree, on the class or on another.

  readers [M, ..] and predicted [..] are label maps of a whole image or volume. nan where the class
  is neither agreed on nor predicted there.
  """
  yes, no = _agreed(readers, class_id)
  said = np.asarray(predicted) == class_id
  return float(ratio(2 * np.sum(said & yes), np.sum(yes) + np.sum(said & (yes | no))))


def consensus_confidence(readers: np.ndarray, prob: np.ndarray, class_id: int) -> float:
  """Half of the class's mean probability where all readers say it, and of 1 - that where none does.

  prob [..] is of the class. nan where either has no pixel.
  """
  yes, no = _agreed(readers, class_id)
  if not yes.any() or not no.any():
    return float('nan')
  return float((prob[yes].mean(dtype=np.float64) + 1 - prob[no].mean(dtype=np.float64)) / 2)


def _agreed(readers: np.ndarray, class_id: int) -> tuple[np.ndarray, np.ndarray]:
  marks = np.asarray(readers) == class_id
  return marks.all(0), ~marks.any(0)


def _equal(values: np.ndarray) -> np.ndarray:
  return np.full(values.shape[-1], 1 / values.shape[-1])


def _spread(x: Array, weight: Array, estimator: str) -> Array:
  """Mean distance of pairs, with those of a value and itself ('v') or without ('u')."""
  if estimator not in ('v', 'u'):
    raise ValueError(f"estimator must be 'v' or 'u', not {estimator!r}")
  pairs = weight[..., :, None] * weight[..., None, :]
  far = (pairs * abs(x[..., :, None] - x[..., None, :])).sum((-2, -1))
  if estimator == 'v':
    return far
  with np.errstate(invalid='ignore'):  # of one value: 0 / 0
    return far / (1 - (weight * weight).sum(-1))
