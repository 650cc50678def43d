"""The Cityscapes variant with random class flips: its 32 label modes and how well they are met.

In training, each of five classes is renamed to a twin with a known probability, for the whole image
at once (arXiv:2006.13144). So the distribution of labels is known exactly: one mode
per subset of flipped classes. Letters: B images, N samples, F flipping classes, C classes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, Integer, Real

from car_jax.metrics.confusion_matrix import known_mean
from car_jax.typing import Array


class Flip(NamedTuple):
  base: int
  twin: int
  probability: float


# sidewalk, person, car, vegetation, road; the order fixes the numbering of the modes
FLIPS = tuple(
  Flip(base, twin, share / 17)
  for base, twin, share in ((1, 19, 8), (11, 20, 7), (13, 21, 6), (8, 22, 5), (0, 23, 4))
)
UNLABELLED = 24
NUM_CLASSES = 25


def switchable(flips: tuple[Flip, ...] = FLIPS) -> tuple[int, ...]:
  """The class ids that the score of this data set is taken over: all bases, then all twins."""
  return tuple(f.base for f in flips) + tuple(f.twin for f in flips)


def mode_flips(flips: tuple[Flip, ...] = FLIPS) -> Bool[np.ndarray, 'modes F']:
  """Which of F classes each of the 2^F modes flips; the first class is the highest bit."""
  modes = np.arange(2 ** len(flips))[:, None]
  return (modes >> np.arange(len(flips))[::-1] & 1).astype(bool)


def mode_weights(flips: tuple[Flip, ...] = FLIPS) -> Float64[np.ndarray, ' modes']:
  """The exact probability of each mode, in the order of `mode_flips`."""
  p = np.array([f.probability for f in flips])
  return np.prod(np.where(mode_flips(flips), p, 1 - p), -1)


def modes(
  labels: Integer[Array, 'B H W'], flips: tuple[Flip, ...] = FLIPS
) -> Integer[Array, 'B modes H W']:
  """Every one of the 2^F modes of unflipped labels, to be scored as readers."""
  labels = jnp.asarray(labels)
  flipped = jnp.asarray(mode_flips(flips))[None, :, :, None, None]
  maps = jnp.broadcast_to(labels[:, None], (labels.shape[0], 2 ** len(flips), *labels.shape[1:]))
  for i, flip in enumerate(flips):
    maps = jnp.where(flipped[:, :, i] & (labels == flip.base)[:, None], flip.twin, maps)
  return maps.astype(labels.dtype)


class FlipCounts(NamedTuple):
  """Over the pixels of each flipping class: how many, and how many of them a sample calls by the
  class's own name and by its twin's."""

  pixels: Int32[Array, 'B F']
  base: Int32[Array, 'B N F']
  twin: Int32[Array, 'B N F']


def flip_counts(
  labels: Integer[Array, 'B H W'],
  samples: Integer[Array, 'B N H W'],
  flips: tuple[Flip, ...] = FLIPS,
) -> FlipCounts:
  """How samples name the flipping classes of unflipped labels."""
  count = lambda x: jnp.sum(x, (-2, -1), dtype=jnp.int32)
  here = [labels == flip.base for flip in flips]
  named = lambda of: jnp.stack(
    [count(at[:, None] & (samples == name)) for at, name in zip(here, map(of, flips), strict=True)],
    -1,
  )
  pixels = jnp.stack([count(at) for at in here], -1)
  return FlipCounts(pixels, named(lambda f: f.base), named(lambda f: f.twin))


def weighted_counts(counts: FlipCounts, weight: Float[Array, 'B N']) -> Float32[Array, 'B F 3']:
  """Pixels, and the weight of base and of twin there."""
  share = lambda x: jnp.einsum('bnf,bn->bf', x.astype(jnp.float32), weight)
  parts = counts.pixels.astype(jnp.float32), share(counts.base), share(counts.twin)
  return jnp.stack(parts, -1)


def mode_masses(counts: FlipCounts, weight: Float[Array, 'B N']) -> Float[Array, 'B modes']:
  """The weight of the samples of each of the 2^F modes, in the order of `mode_flips`.

  A sample's mode is by majority within each class. Rows of images that lack a class are 0.
  """
  classes = counts.pixels.shape[-1]
  bits = (counts.twin > counts.base).astype(jnp.int32)
  mode = jnp.sum(bits << jnp.arange(classes)[::-1], -1)  # [B, N]
  mass = jnp.einsum('bn,bnm->bm', weight, jax.nn.one_hot(mode, 2**classes))
  return jnp.where(jnp.all(counts.pixels > 0, -1, keepdims=True), mass, 0)


def flip_rates(counts: Real[Array, '*at F 3']) -> Float[np.ndarray, '*at F']:
  """Of summed counts: how often a class that is found bears its twin's name.

  The share of twins among base and twin; pixels taken for a third class say nothing of the flip.
  """
  counts = np.asarray(counts, np.float64)
  with np.errstate(invalid='ignore'):
    return counts[..., 2] / (counts[..., 1] + counts[..., 2])


def frequency_error(
  counts: Real[Array, 'F 3'], flips: tuple[Flip, ...] = FLIPS, *, pixels: bool = False
) -> float:
  """Counts summed over images -> mean absolute error of `flip_rates`, against the flips'
  probabilities; with `pixels` of the 2 F `frequencies`, in which missed pixels count."""
  truth = np.array([(1 - f.probability, f.probability) for f in flips])
  error = np.abs(frequencies(counts) - truth if pixels else flip_rates(counts) - truth[:, 1])
  return known_mean(error)


def frequencies(counts: Real[Array, '*at F 3']) -> Float[np.ndarray, '*at F 2']:
  """Of summed counts, the shares of base and twin; nan for a class never seen."""
  counts = np.asarray(counts, np.float64)
  with np.errstate(invalid='ignore'):
    return counts[..., 1:] / counts[..., :1]


class ClassSums(NamedTuple):
  """Summed probability and pixel count per class; they merge by addition."""

  probability: Float[Array, 'B C']
  pixels: Integer[Array, 'B C']


def correct(
  labels: Integer[Array, '*at'], black_box: Integer[Array, '*at'], flips: tuple[Flip, ...] = FLIPS
) -> Bool[Array, '*at']:
  """Where the black-box prediction agrees with the label, twins taken for their base.

  Both may be flipped or not.
  """
  for flip in flips:
    labels, black_box = (jnp.where(x == flip.twin, flip.base, x) for x in (labels, black_box))
  return labels == black_box


def class_sums(
  probs: Float[Array, 'B H W C'],
  labels: Integer[Array, 'B H W'],
  black_box: Integer[Array, 'B H W'],
  flips: tuple[Flip, ...] = FLIPS,
) -> ClassSums:
  """Probability of each class over the pixels of its label, a twin's over those of its base.

  Only pixels where the black box is right count. Rows of an image are summed first, which keeps
  float32 sums exact enough.
  """
  owner = np.arange(probs.shape[-1])
  for flip in flips:
    owner[flip.twin] = flip.base
  here = (labels[..., None] == owner) & correct(labels, black_box, flips)[..., None]
  rows = jnp.sum(jnp.where(here, probs.astype(jnp.float32), 0), 2)
  return ClassSums(jnp.sum(rows, 1), jnp.sum(here, (1, 2), dtype=jnp.int32))


def class_probabilities(
  batches: list[ClassSums], *, pooled: bool = True
) -> Float[np.ndarray, ' C']:
  """Mean probability per class over a data set.

  pooled: all sums over all counts, nan for a class that never occurs. pooled=False is the
  published form: the mean over batches of each batch's ratio, 0 for a class absent from the batch,
  which pulls rare classes towards 0.
  """
  sums = np.array([np.sum(np.asarray(b.probability, np.float64), 0) for b in batches])
  counts = np.array([np.sum(np.asarray(b.pixels, np.float64), 0) for b in batches])
  if not pooled:
    return np.mean(sums / np.maximum(counts, 1), 0)
  with np.errstate(invalid='ignore'):
    return sums.sum(0) / counts.sum(0)
