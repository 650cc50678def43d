"""Calibration of labels that may hold at once, each with a probability of its own (a sigmoid's).

Letters: B images, H x W pixels, L labels, K bins. Probabilities are given, never guessed from what
looks like logits; nothing is normalised over labels. Of each label there are two errors:
  presence   does a label of probability p hold for a share p of the pixels?
  decision   is the better one of yes and no, of confidence max(p, 1 - p), right that often?
The second is small wherever the label is rare.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from car_jax.metrics import calibration
from car_jax.metrics.calibration import FLOOR, BinSums
from car_jax.metrics.confusion_matrix import known_mean, ratio
from car_jax.typing import Array


class LabelSums(NamedTuple):
  """Of each image and label, to be added over images in float64. Bins are [B, L, K]."""

  presence: BinSums
  decision: BinSums
  brier: Float[Array, 'B L']
  nll: Float[Array, 'B L']


@dataclasses.dataclass(frozen=True)
class LabelScores:
  """[L] each, nan of a label without a pixel that counts."""

  pixels: np.ndarray
  ece: np.ndarray
  ece_of_decision: np.ndarray
  brier: np.ndarray
  nll: np.ndarray

  @property
  def mean_ece(self) -> float:
    """Over labels; state the worst one beside it."""
    return known_mean(self.ece)

  @property
  def worst_ece(self) -> float:
    return float(np.nanmax(self.ece)) if np.isfinite(self.ece).any() else float('nan')


def label_sums(
  probs: Float[Array, 'B H W L'],
  truth: Bool[Array, 'B H W L'],
  valid: Bool[Array, 'B H W L'] | Bool[Array, 'B H W 1'],
  *,
  num_bins: int = 15,
) -> LabelSums:
  """valid: which pixels count, for each label or the same for all."""
  shape = (len(probs), probs.shape[-1])
  rows = lambda x: jnp.moveaxis(x, -1, 1).reshape(shape[0] * shape[1], -1)
  p, y, ok = rows(probs), rows(truth), rows(jnp.broadcast_to(valid, probs.shape))
  p = p.astype(jnp.result_type(float))
  summed = lambda conf, hits: BinSums(
    *(x.reshape(*shape, -1) for x in calibration.bin_sums(conf, hits, ok, num_bins))
  )
  said = p > 0.5  # half and half is a no
  own = jnp.where(y, p, 1 - p)
  total = lambda x: calibration.piecewise_sum(jnp.where(ok, x, 0)).reshape(shape)
  return LabelSums(
    summed(p, y),
    summed(jnp.maximum(p, 1 - p), said == y),
    total((p - y) ** 2),
    total(-jnp.log(jnp.maximum(own, FLOOR))),
  )


def label_scores(sums: LabelSums) -> LabelScores:
  """LabelSums of B images, of any batches joined -> scores of all of them."""
  add = lambda x: np.asarray(x, np.float64).sum(0)
  presence, decision = (BinSums(*map(add, s)) for s in (sums.presence, sums.decision))
  errors = lambda s: np.array([calibration.ece(BinSums(*row)) for row in zip(*s, strict=True)])
  pixels = np.asarray(presence.pixels).sum(-1)
  return LabelScores(
    pixels=pixels,
    ece=errors(presence),
    ece_of_decision=errors(decision),
    brier=ratio(add(sums.brier), pixels),
    nll=ratio(add(sums.nll), pixels),
  )
