"""Scores of a set of sampled segmentations against a set of readers, one value per image.

Letters: B examples, N samples, M readers, L = M + N label maps, K scored classes, H x W pixels.
Weights are of each example or the same for all; None: all equal. They need not sum to one; a
map of weight 0 is padding and does not count. An image whose
readers, or samples, are all padding scores nan.

Published scores differ in conventions, so each of them is an argument (docs/metrics.md):
  classes   the class ids that are scored
  absent    a class that neither map of a pair has: 'one' = IoU 1, 'skip' = left out of the class
            mean; a pair without any class left is nan, and so is its image; 'zero' = IoU 0, even
            of a map and itself, as published with D-Persona (arXiv 2403.13438): the GED of an
            image that no reader marks is then lower by (1 - share of empty samples) ** 2
  ignore    the label of pixels of which a reader says nothing; which pixels count then:
  ignored   'void': nobody knows what is there, so no score looks there. A reader counts where that
            reader knows, two readers where both do, two samples where any reader does; a reader
            who knows nothing is padding, an image that no reader knows anything of scores nan.
            What samples say changes none of that.
            'class': as published with CAR's and MoSE's Cityscapes, where it is a class that models
            emit: pixels where the *second* map of a pair holds it are left out; the readers come
            first, then the samples, and the later map is second
  estimator 'v' or 'u', see `ged`
  distance  'iou' or 'dice': one minus which of the two

`compare` does the work per pixel, once; `ged`, `hm_iou` and `max_dice` take its result in place of
`samples, readers`, so that one pass over the pixels serves them all, and those of readers.py too.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer, Real

from car_jax.metrics import overlap, transport
from car_jax.typing import Array

IGNORED = ('void', 'class')
BEST = ('samples', 'readers', 'both')


class Comparison(NamedTuple):
  """What is known of all pairs of an image's maps, the M readers first, then the N samples.

  iou and dice are means over classes, and symmetric; the weights sum to one. counts: of each class;
  pixels: how many count for a pair.
  """

  iou: Float[Array, 'B L L']
  dice: Float[Array, 'B L L']
  reader_weight: Float[Array, 'B M']
  sample_weight: Float[Array, 'B N']
  counts: overlap.Overlap
  pixels: Integer[Array, 'B L L']


Samples = Integer[Array, 'B N H W'] | Comparison
Readers = Integer[Array, 'B M H W'] | None


class GED(NamedTuple):
  """ged = 2 d_ys - d_ss - d_yy; Y are the readers, S the samples."""

  ged: Float[Array, ' B']
  d_ys: Float[Array, ' B']
  d_ss: Float[Array, ' B']
  d_yy: Float[Array, ' B']


def compare(
  samples: Integer[Array, 'B N H W'],
  readers: Integer[Array, 'B M H W'],
  *,
  classes: tuple[int, ...],
  sample_weight: Real[Array, '... N'] | None = None,
  reader_weight: Real[Array, '... M'] | None = None,
  absent: str = 'one',
  ignore: int | None = None,
  ignored: str = 'void',
) -> Comparison:
  """IoU and Dice of all pairs of an image's maps. Memory holds B x L x L x K numbers."""
  if ignored not in IGNORED:
    raise ValueError(f'ignored must be one of {IGNORED}, not {ignored!r}')
  weight = lambda w, like: _normalised(1.0 if w is None else w, like.shape[:2])
  by_reader, by_sample = weight(reader_weight, readers), weight(sample_weight, samples)
  which: dict[str, Any] = {'ignore': ignore}
  maps, area = readers.shape[1] + samples.shape[1], readers.shape[2] * readers.shape[3]
  pixels = jnp.full((len(readers), maps, maps), area, jnp.int32)
  if ignore is not None and ignored == 'void':
    knows = known(readers, by_reader, ignore)
    by_reader = _normalised(jnp.where(jnp.any(knows, (2, 3)), by_reader, 0.0), by_reader.shape)
    which = {'known': (knows, jnp.any(knows, 1, keepdims=True))}
    pixels = _pixels(knows, samples.shape[1])
  counts = overlap.overlap((readers, samples), tuple(classes), **which)
  return _valued(counts, pixels, by_reader, by_sample, absent)


def with_absent(c: Comparison, absent: str) -> Comparison:
  """The same with another value of a class that neither map has."""
  return _valued(c.counts, c.pixels, c.reader_weight, c.sample_weight, absent)


def _valued(
  counts: overlap.Overlap, pixels: Array, by_reader: Array, by_sample: Array, absent: str
) -> Comparison:
  mean = lambda of: overlap.class_mean(overlap.mirrored(of(counts)), absent)
  score = lambda of: jnp.where(pixels == 0, jnp.nan, mean(of))
  return Comparison(score(overlap.iou), score(overlap.dice), by_reader, by_sample, counts, pixels)


def known(
  readers: Integer[Array, 'B M H W'], weight: Real[Array, 'B M'], ignore: int | None
) -> Bool[Array, 'B M H W']:
  """Which pixels each reader knows.

  A reader of weight 0 (or nan) is padding and knows nothing.
  """
  there = jnp.broadcast_to((weight > 0)[..., None, None], readers.shape)
  return there if ignore is None else there & (jnp.asarray(readers, jnp.int32) != ignore)


def _pixels(knows: Array, samples: int) -> Array:
  """How many pixels both maps of a pair know [B, L, L], the N samples last."""
  flat = knows.reshape(*knows.shape[:2], -1).astype(jnp.float32)
  both = jnp.einsum('bip,bjp->bij', flat, flat).astype(jnp.int32)
  of_each, of_any = jnp.sum(knows, (2, 3)), jnp.sum(jnp.any(knows, 1), (1, 2))
  by_sample = jnp.broadcast_to(of_each[:, :, None], (*of_each.shape, samples))
  among = jnp.broadcast_to(of_any[:, None, None], (len(of_any), samples, samples))
  upper, lower = (both, by_sample), (jnp.swapaxes(by_sample, 1, 2), among)
  return jnp.concatenate([jnp.concatenate(upper, 2), jnp.concatenate(lower, 2)], 1)


def ged(
  samples: Samples,
  readers: Readers = None,
  *,
  estimator: str = 'v',
  distance: str = 'iou',
  **conventions,
) -> GED:
  """Squared generalised energy distance (arXiv:1806.05034; no root is taken).

    2 E[d(Y, S)] - E[d(S, S')] - E[d(Y, Y')],   d = 1 - IoU, S, S' and Y, Y' independent
  estimator 'v': the means over S, S' and over Y, Y' count the N (M) zero distances of a map to
  itself, as every published code does. The value then falls as N grows: by E[d(S, S')] / N of
  pure bias. 'u': both means leave those pairs out. Its expectation is the same for every N, it may
  be negative, and an image with one reader or one sample is nan: one map says nothing of a spread.
  """
  if estimator not in ('v', 'u'):
    raise ValueError(f"estimator must be 'v' or 'u', not {estimator!r}")
  c = _comparison(samples, readers, conventions)
  far, own = 1 - _similarity(c, distance), estimator == 'v'
  M = c.reader_weight.shape[1]
  d_ys = _mean(far[:, :M, M:], c.reader_weight, c.sample_weight)
  d_ss = _mean(far[:, M:, M:], c.sample_weight, c.sample_weight, self_pairs=own)
  d_yy = _mean(far[:, :M, :M], c.reader_weight, c.reader_weight, self_pairs=own)
  return GED(2 * d_ys - d_ss - d_yy, d_ys, d_ss, d_yy)


def hm_iou(samples: Samples, readers: Readers = None, **conventions) -> Float[Array, ' B']:
  """Mean IoU of samples matched to readers at the best assignment.

  Readers are repeated until there are N of them; where N is not a multiple of the readers, both
  sides are repeated to the least common multiple. It is computed as the equal optimal transport
  between the two sets of weights (`transport.plan`), which also serves unequal weights; a padding
  reader takes no part, so images of one batch may differ in their number of readers.
  """
  c = _comparison(samples, readers, conventions)
  M, N = c.reader_weight.shape[1], c.sample_weight.shape[1]
  similarity = c.iou[:, :M, M:]
  counts = (c.reader_weight[:, :, None] > 0) & (c.sample_weight[:, None] > 0)
  unknown = jnp.any(counts & jnp.isnan(similarity), (1, 2)) | ~jnp.any(counts, (1, 2))
  safe = jnp.where(counts & ~jnp.isnan(similarity), similarity, 0.0)
  units = lambda w: jnp.nan_to_num(w) * N
  flow = jax.vmap(transport.plan)(1 - safe, units(c.sample_weight), units(c.reader_weight))
  matched = jnp.sum(flow * safe, (1, 2)) / jnp.maximum(jnp.sum(flow, (1, 2)), 1e-30)
  return jnp.where(unknown, jnp.nan, matched)


def max_dice(
  samples: Samples, readers: Readers = None, *, best: str = 'samples', **conventions
) -> Float[Array, ' B']:
  """Dice of the best match, mean over the other side; a pair without the classes has `absent`.

  best: 'samples'  each reader's best sample, mean over readers: D_max of arXiv:2304.04745, whose
                   authors did not publish its code
        'readers'  each sample's best reader, mean over samples
        'both'     half the sum of the two
  D-Persona (arXiv 2403.13438) prints all three, 'readers' as Dice_max and 'samples' as its reverse.
  The best of samples can only grow with N: compare it at equal N alone.
  """
  c = _comparison(samples, readers, conventions)
  if best == 'both':
    return (max_dice(c, best='samples') + max_dice(c, best='readers')) / 2
  if best not in BEST:
    raise ValueError(f'best must be one of {BEST}, not {best!r}')
  M = c.reader_weight.shape[1]
  pairs, weight, used = c.dice[:, :M, M:], c.reader_weight, c.sample_weight > 0
  if best == 'readers':
    pairs, weight, used = jnp.swapaxes(pairs, 1, 2), c.sample_weight, c.reader_weight > 0
  largest = jnp.max(jnp.where(used[:, None], pairs, -jnp.inf), -1)
  largest = jnp.where(jnp.any(used, -1, keepdims=True), largest, jnp.nan)
  return weighted_sum(largest, weight, (1,))


class Diversity(NamedTuple):
  """d_ss: mean distance of two samples; pixel_variance: see there."""

  d_ss: Float[Array, ' B']
  pixel_variance: Float[Array, ' B']


def diversity(
  samples: Integer[Array, 'B N H W'],
  readers: Readers = None,
  *,
  classes: tuple[int, ...],
  sample_weight: Real[Array, '... N'] | None = None,
  reader_weight: Real[Array, '... M'] | None = None,
  estimator: str = 'v',
  distance: str = 'iou',
  absent: str = 'one',
  ignore: int | None = None,
) -> Diversity:
  """How much an image's samples differ among themselves.

  More is not better: compare it with the readers' own, which is the same call with them as samples.
  `readers` say with `ignore` which pixels count; without them each sample does, as a
  reader would.
  """
  kw: dict[str, Any] = dict(classes=tuple(classes), absent=absent, ignore=ignore)
  of: dict[str, Any] = dict(estimator=estimator, distance=distance)
  variance = functools.partial(pixel_variance, samples, classes=tuple(classes), ignore=ignore)
  if readers is None:
    alone = compare(samples[:, :0], samples, reader_weight=sample_weight, **kw)
    return Diversity(ged(alone, **of).d_yy, variance(sample_weight=sample_weight))
  weights: dict[str, Any] = dict(sample_weight=sample_weight, reader_weight=reader_weight)
  return Diversity(ged(samples, readers, **of, **kw, **weights).d_ss, variance(readers, **weights))


def pairwise_dice(
  samples: Integer[Array, 'B N H W'], *, classes: tuple[int, ...], **options
) -> Float[Array, ' B']:
  """How much samples agree, as the confidence of an image (arXiv 2406.03323): 1 - their diversity.

  Mean over pairs of two samples of the mean over classes of Dice. nan with one sample. Options as
  in `diversity`.
  """
  return 1 - diversity(samples, classes=classes, estimator='u', distance='dice', **options).d_ss


def pixel_variance(
  samples: Integer[Array, 'B N H W'],
  readers: Readers = None,
  *,
  classes: tuple[int, ...],
  sample_weight: Real[Array, '... N'] | None = None,
  reader_weight: Real[Array, '... M'] | None = None,
  ignore: int | None = None,
) -> Float[Array, ' B']:
  """Mean over pixels of sum_k p_k (1 - p_k), p_k the share of samples that say k.

  It is 0 where all samples agree; for one foreground class at most 1/4.
  `readers` and `ignore` as in `diversity`; nan for an image without a pixel that counts.
  """
  samples = jnp.asarray(samples)
  share_of = lambda w, like: _normalised(1.0 if w is None else w, like.shape[:2])
  weight = share_of(sample_weight, samples)[..., None, None]
  seen = jnp.ones((len(samples), *samples.shape[2:]), bool)
  if ignore is not None and readers is not None:
    seen = jnp.any(known(readers, share_of(reader_weight, readers), ignore), 1)
  elif ignore is not None:
    weight = jnp.where(known(samples, weight[..., 0, 0], ignore), weight, 0.0)
    seen = jnp.sum(weight, 1) > 0
    weight = weight / jnp.where(seen, jnp.sum(weight, 1), 1.0)[:, None]

  def of(k, total):
    # A loop, so that the [B, N, H, W] masks of all classes never exist at once.
    share = jnp.sum(jnp.where(samples == ids[k], weight, 0.0), 1)
    spread = jnp.where(seen, share * (1 - share), 0.0)
    return total + jnp.sum(jnp.sum(spread, -1), -1) / jnp.sum(seen, (1, 2))

  ids = jnp.asarray(classes, samples.dtype)
  start = jnp.zeros(samples.shape[0]) + 0 * weight[:, 0, 0, 0]
  return jax.lax.fori_loop(0, len(classes), of, start)


def convention(
  name: str,
  n: int,
  *,
  classes: tuple[int, ...],
  num_classes: int,
  absent: str | None = 'one',
  estimator: str | None = None,
  distance: str = 'iou',
  ignore: int | None = None,
  ignored: str = 'void',
  more: tuple[str, ...] = (),
) -> str:
  """The name of a score together with what it depends on, such as 'ged16[v,absent=1,fg]'.

  Everything that changes the number is in it: two equal strings are comparable, two different ones
  are not. `estimator` and `absent` only for the scores that have one; 'fg' means every class but 0.
  """
  parts = [] if estimator is None else [estimator]
  parts += [] if absent is None else [absent_part(absent)]
  parts.append(classes_part(classes, num_classes))
  parts += [] if distance == 'iou' else [distance]
  parts += [] if ignore is None else [{'void': f'ignore={ignore}'}.get(ignored, f'class={ignore}')]
  return f'{name}{n}[{",".join([*parts, *more])}]'


def absent_part(absent: str) -> str:
  """What a convention says of classes that neither map has."""
  return {'one': 'absent=1', 'zero': 'absent=0'}.get(absent, f'absent={absent}')


def classes_part(classes: tuple[int, ...], num_classes: int) -> str:
  """What a convention says of the classes that are scored."""
  if tuple(classes) == tuple(range(num_classes)):
    return 'all'
  if tuple(classes) == tuple(range(1, num_classes)):
    return 'fg'
  return 'classes=' + '+'.join(map(str, classes))


def _comparison(samples, readers, conventions) -> Comparison:
  if not isinstance(samples, Comparison):
    return compare(samples, readers, **conventions)
  if readers is not None or conventions:
    raise TypeError(f'a Comparison has its readers and conventions: also got {[*conventions]}')
  return samples


def _similarity(c: Comparison, distance: str) -> Array:
  if distance not in ('iou', 'dice'):
    raise ValueError(f"distance must be 'iou' or 'dice', not {distance!r}")
  return c.iou if distance == 'iou' else c.dice


def _normalised(weight: Array | float, shape: tuple[int, ...]) -> Array:
  """[B, X], [X] or a number -> [B, X] summing to one over X; nan where nothing has weight."""
  weight = jnp.broadcast_to(jnp.asarray(weight, jnp.result_type(float)), shape)
  return weight / jnp.sum(weight, -1, keepdims=True)


def weighted_sum(values: Array, weight: Array, axes: tuple[int, ...]) -> Array:
  """Weighted sum in which weight 0 silences nan, and nan weights stay nan."""
  return jnp.sum(jnp.where(weight == 0, 0.0, values * weight), axes)


def _mean(far: Array, left: Array, right: Array, *, self_pairs: bool = True) -> Array:
  """Mean of far [B, I, J] under left [B, I] x right [B, J], with or without its diagonal."""
  weight = left[:, :, None] * right[:, None]
  if not self_pairs:
    weight = weight * (1 - jnp.eye(far.shape[1]))
    weight = weight / jnp.sum(weight, (1, 2), keepdims=True)
  return weighted_sum(far, weight, (1, 2))
