"""Prediction at several scales and mirrored, averaged, as DeepLabv3 does (arXiv 1706.05587).

Letters: B images, H x W pixels, C classes.
"""

import itertools
import math
import numbers
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from car_jax.errors import UserError
from car_jax.nn.resize import resize_bilinear
from car_jax.typing import Array


def averaged(
  predict: Callable[[Array], Array],
  image: Array,
  scales: Sequence[float],
  mirror: bool,
  *,
  multiple: int = 1,
  align_corners: bool = False,
) -> Array:
  """Logits [B, H, W, C] whose softmax is the mean of the copies' probabilities.

  `predict` gives logits of one size, whatever that of its images [B, h, w, channels]. One copy's
  are returned as they are. Several copies' have the mean of their log-sum-exps, so that scores
  that depend on the logits' size, such as the energy, mean what those of one copy do.
  """
  looks = list(itertools.product(scales, (False, True) if mirror else (False,)))
  total, energy = jnp.float32(-jnp.inf), jnp.float32(0)
  for scale, mirrored in looks:
    size = scaled(image.shape[1:3], scale, multiple)
    copy = resize_bilinear(image, size, align_corners=align_corners)
    logits = predict(copy[:, :, ::-1])[:, :, ::-1] if mirrored else predict(copy)
    if len(looks) == 1:
      return logits
    own = jax.nn.logsumexp(logits, -1, keepdims=True)
    # Added as logarithms: a probability that float32 rounds to zero would be a logit of -inf.
    total, energy = jnp.logaddexp(total, logits - own), energy + own
  return total - math.log(len(looks)) + energy / len(looks)


def scaled(size: tuple[int, ...], scale: float, multiple: int) -> tuple[int, ...]:
  """The sides times `scale`, each the nearest `multiple`; at scale 1 as they are."""
  if scale == 1:
    return size
  height, width = (max(multiple, round(side * scale / multiple) * multiple) for side in size)
  return height, width


def check(scales: Sequence[float]) -> None:
  """Raises UserError for anything but positive numbers."""
  given = scales if isinstance(scales, (tuple, list)) else [scales]
  valid = [s for s in given if isinstance(s, numbers.Real) and 0 < float(s) < math.inf]
  if not valid or len(valid) < len(given) or given is not scales:
    raise UserError(
      f'config.method.scales is {scales!r}; it holds one or more positive numbers\n'
      f'  use --config.method.scales={",".join(map(str, valid)) or 1.0}'
    )
