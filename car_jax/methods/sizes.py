"""Images that are predicted at another size than that of their labels: `fit` and `resize` of data.

Letters as in methods/base.py.
"""

from typing import Any

import jax.numpy as jnp

from car_jax.methods.base import Batch, Samples
from car_jax.nn.resize import resize_bilinear, resize_nearest


def as_image(batch: Batch) -> dict[str, Any]:
  """A batch whose maps of classes that methods condition on have its image's size: the nearest
  pixel's."""
  size = batch['image'].shape[1:3]
  maps = {key: jnp.asarray(batch[key]) for key in ('label', 'black_box') if key in batch}
  other = {key: x for key, x in maps.items() if x.shape[1:] != size}
  return {**batch, **{key: resize_nearest(x[..., None], size)[..., 0] for key, x in other.items()}}


def as_labels(samples: Samples, batch: Batch) -> Samples:
  """Samples of the size of the batch's labels, where it has any: class probabilities between pixels
  are those of the pixels around, by distance."""
  if 'labels' not in batch:
    return samples
  resize = lambda x: resize_bilinear(x, batch['labels'].shape[-2:], align_corners=False)
  own = None if samples.marginal is None else resize(samples.marginal)
  return samples.replace(probs=resize(samples.probs), marginal=own)
