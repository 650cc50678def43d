"""Self-training on several views of an image, as in DA-SAC (arXiv 2105.00097, CVPR 2021).

Letters: B views, T views of one image (B = N T, an image's views in a row), H x W pixels,
C classes. A label of -1 is not learnt from.
"""

import jax
import jax.numpy as jnp

from car_jax.typing import Array

ABSENT = 0.1  # of probability in all of an image's views together: less, and nobody saw the pixel


def pixel_losses(logits: Array, labels: Array) -> Array:
  """logits [B, H, W, C], labels [B, H, W] int -> [B, H, W] nats, 0 where a label is negative."""
  wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  picked = jnp.take_along_axis(wide, jnp.maximum(labels, 0)[..., None], -1)[..., 0]
  return jnp.where(labels >= 0, jax.nn.logsumexp(wide, -1) - picked, 0)


def mean_of_views(probs: Array, views: int) -> tuple[Array, Array]:
  """probs [B, H, W, C] in the image's frame -> their mean there [B, H, W, C], seen [B, H, W, 1].

  Views that see less of a pixel count less; each image's result is repeated for its views.
  """
  total = jnp.sum(_grouped(probs, views), 1)
  mass = jnp.sum(total, -1, keepdims=True)
  mean = total / jnp.maximum(mass, 1e-3)
  return _repeated(mean, views), _repeated(mass > ABSENT, views)


def surest_of_views(probs: Array, views: int) -> tuple[Array, Array]:
  """As `mean_of_views`, but of each pixel the view of least entropy, the first of equals, as it is.

  Where the chosen view does not sum to one, the result does not either.
  """
  grouped = _grouped(probs, views)
  mass = jnp.sum(grouped, -1)
  shifted = (grouped + 1e-5) / (1 + 1e-5)
  entropy = jnp.where(mass < ABSENT, 1e5, -jnp.sum(grouped * jnp.log(shifted), -1))
  surest = jnp.argmin(entropy, 1)[:, None, ..., None]
  chosen = jnp.take_along_axis(grouped, surest, 1)[:, 0]
  seen = jnp.sum(mass, 1)[..., None] > ABSENT
  return _repeated(chosen, views), _repeated(seen, views)


POOLS = {'mean': mean_of_views, 'surest': surest_of_views}


def _grouped(x: Array, views: int) -> Array:
  return x.reshape(-1, views, *x.shape[1:])


def _repeated(x: Array, views: int) -> Array:
  return jnp.repeat(x, views, axis=0)


def updated_prior(prior: Array, probs: Array, *, start: float, momentum: float) -> Array:
  """The running share of each class [C], moved towards the mean of probs [B, H, W, C].

  A class whose prior is still exactly `start` takes its first share whole. That happens in the
  first update or never: the moving average takes unseen classes off `start` too. `momentum` is the
  weight of the old share.
  """
  share = jnp.mean(probs, (0, 1, 2)).astype(prior.dtype)
  fresh = (prior == jnp.asarray(start, prior.dtype)) & (share > 1e-8)
  prior = jnp.where(fresh, share, prior)
  return momentum * prior + (1 - momentum) * share


def thresholds(
  probs: Array, prior: Array, *, upper: float, lower: float, scale: float, discount: bool = True
) -> Array:
  """probs [B, H, W, C], prior [C] -> [B, C]: the confidence that a pseudo label must exceed.

  A share `upper` of the most confident pixel of that class in that view, less for classes as rare
  as `scale`, so that they are learnt at all (unless `discount` is False); never below `lower`.
  """
  confidence, best = jnp.max(probs, -1, keepdims=True), jnp.argmax(probs, -1)
  of_class = best[..., None] == jnp.arange(probs.shape[-1])
  peak = jnp.max(jnp.where(of_class, confidence, 0), (1, 2))
  share = upper * (1 - jnp.exp(-prior / scale)) if discount else upper
  return jnp.maximum(lower, share * peak)


def pseudo_labels(probs: Array, padded: Array, least: Array) -> tuple[Array, Array]:
  """probs [B, H, W, C], padded [B, H, W] bool, least [B, C] -> labels int32, confidence [B, H, W].

  The likeliest class where its probability exceeds its threshold, else -1.
  """
  confidence, best = jnp.max(probs, -1), jnp.argmax(probs, -1)
  needed = jax.vmap(jnp.take)(least, best)
  kept = (confidence > needed) & ~padded
  return jnp.where(kept, best, -1).astype(jnp.int32), confidence


def focal_weight(prior: Array, power: float) -> Array:
  """[C] -> [C]: the rarer a class, the nearer to one."""
  return (1 - jnp.maximum(prior, 0)) ** power


def focal_losses(logits: Array, labels: Array, prior: Array, *, power: float) -> Array:
  """[B, H, W]: cross entropy of pseudo labels, weighted by the rarity of their class.

  prior and power: as in `focal_weight`.
  """
  weight = jnp.take(focal_weight(prior, power), jnp.maximum(labels, 0))
  return pixel_losses(logits, labels) * weight


def averaged_confidence(confidence: Array, count: int = 0) -> Array:
  """[B, H, W] -> [B, H, W]: at each place the mean over `count` views in a row, 0 for all of them.

  The published training weighted by this, whatever the views show there: a product of [B, H, W]
  and [B, 1, H, W] is [B, B, H, W] in numpy's way of broadcasting.
  """
  count = count or len(confidence)
  return _repeated(jnp.mean(_grouped(confidence, count), 1), count)
