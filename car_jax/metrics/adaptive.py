"""Thresholds for each image, shifted on fresh data so that they keep a promise.

A regressor predicts the threshold tau at which an image's set {p >= tau} holds 1 - alpha of what
is to be found; a shift s, chosen by conformal risk control on images that neither the net nor the
regressor has seen, makes {p >= clip(tau - s, 0, 1)} miss at most alpha on average. The promise is
marginal as ever; what improves is how far single images are from it. Three disjoint splits besides
the test images are needed: for the net, the regressor and the shift.

Letters: B images, H x W pixels.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from car_jax.metrics import conformal
from car_jax.typing import Array

TEMPERATURE = 0.05
ROUNDING = 1e-9


def oracle_threshold(positives: np.ndarray, alpha: float) -> float:
  """Scores of an image's pixels to be found -> the largest t with 1 - alpha of them in {p >= t}.

  nan of none.
  """
  positives = np.asarray(positives, np.float64).reshape(-1)
  count = int(np.ceil((1 - alpha) * positives.size - 1e-9))
  if not positives.size:
    return float('nan')
  return float(np.sort(positives)[::-1][count - 1]) if count else 1.0


def shift(
  positives: Sequence[np.ndarray],
  thresholds: np.ndarray,
  alpha: float,
  *,
  empty: str = 'leave_out',
) -> conformal.Choice:
  """The least s for predicted thresholds [B] in [0, 1]; `value` is s.

  positives: the scores of `conformal.exact`. A pixel of probability 1 is in every set. The largest
  shift, 1, is for the whole image. s is a billionth too large, so that no rounding of tau - s loses
  a pixel.
  """
  certain = lambda s, t: np.where(s >= 1, 2.0, s - t)  # beyond any shift
  above = [certain(np.asarray(s), t) for s, t in zip(positives, thresholds, strict=True)]
  choice = conformal.exact(above, alpha, empty=empty, largest=-1.0)
  return dataclasses.replace(choice, value=float(np.clip(ROUNDING - choice.value, -1, 1)))


def shifted(thresholds: np.ndarray, s: float) -> np.ndarray:
  """The thresholds to use [B]."""
  return np.clip(np.asarray(thresholds, np.float64) - s, 0, 1)


def soft_miscoverage(
  probs: Float[Array, 'B H W'],
  truth: Bool[Array, 'B H W'],
  thresholds: Float[Array, ' B'],
  *,
  alpha: float,
  temperature: float = TEMPERATURE,
) -> Float[Array, '']:
  """Mean over images of (soft recall - (1 - alpha))^2, the loss that trains thresholds (COAT).

  Soft recall is the sum of sigmoid((p - tau) / T) over what is to be found, over its pixels + 1e-6:
  0 in an image without any, which then adds a constant.
  """
  soft = jax.nn.sigmoid((probs - thresholds[:, None, None]) / temperature)
  recall = jnp.sum(jnp.where(truth, soft, 0), (1, 2)) / (jnp.sum(truth, (1, 2)) + 1e-6)
  return jnp.mean((recall - (1 - alpha)) ** 2)
