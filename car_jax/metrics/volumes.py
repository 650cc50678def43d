"""Is the predicted volume one of the readers'? CRPS of volumes; what all readers agree on.

Letters: M readers, N samples; leading axes are free. Volumes of images are areas; their unit is the
caller's: pixels, voxels, or times the size of one. On the host, in float64.
"""

import numpy as np
from scipy import stats

from car_jax.metrics.confusion_matrix import ratio


def crps(samples: np.ndarray, readers: np.ndarray, *, estimator: str = 'v') -> np.ndarray:
  """The samples' volumes [.., N] as a forecast of each reader's [.., M]: mean over readers.

  mean |V_s - v_m| - mean |V_s - V_s'| / 2, a proper score for each reader; 'v' counts the pairs of
  a sample with itself, 'u' does not, which is nan for one sample.
  """
  samples, readers = np.asarray(samples, np.float64), np.asarray(readers, np.float64)
  return _apart(samples, readers) - _spread(samples, estimator) / 2


def energy(samples: np.ndarray, readers: np.ndarray, *, estimator: str = 'v') -> np.ndarray:
  """2 mean |V_s - v_m| - mean |V_s - V_s'| - mean |v_m - v_m'|: GED of volumes."""
  samples, readers = np.asarray(samples, np.float64), np.asarray(readers, np.float64)
  own = _spread(samples, estimator) + _spread(readers, estimator)
  return 2 * _apart(samples, readers) - own


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


def _apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  return np.abs(a[..., :, None] - b[..., None, :]).mean((-2, -1))


def _spread(x: np.ndarray, estimator: str) -> np.ndarray:
  """Mean over pairs, with those of a value and itself ('v') or without ('u')."""
  if estimator not in ('v', 'u'):
    raise ValueError(f"estimator must be 'v' or 'u', not {estimator!r}")
  n = x.shape[-1]
  return _apart(x, x) * (1 if estimator == 'v' else n / (n - 1) if n > 1 else np.nan)
