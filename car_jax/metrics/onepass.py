"""All that a reliability report needs of logits, in one pass: counts that add up exactly.

Letters: B images, N pixels of each, C classes, S scores, K bins of a histogram, E bins of an ECE.
Everything counted is an integer, also sums of confidences, which are kept in steps of 2^-20. So the
result does not depend on how pixels are cut into blocks, their order, or the number of devices.

Every pixel has one outcome: its class is right or wrong, or it is of an object of no known class.
A void pixel has none and counts nowhere but in the image's mean confidence.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array

RIGHT, WRONG, UNKNOWN, VOID = range(4)
OUTCOMES = VOID  # that count
SCORES = ('max_prob', 'entropy', 'margin', 'max_logit', 'energy')
EXTRA = 'disagreement'  # a map that comes with the logits, such as the mutual information
BINS = 8192
COARSE = 256  # bins kept per image, for intervals over images
BLOCK = 1 << 18  # pixels worked on at a time: bounds the memory, and every sum below 2^32
LOW, HIGH = -14.0, 50.0  # of the logarithmic coordinates: 128 bins to a factor of e
REACH = 12.0  # of the coordinates of logits, asinh(x)


class Counts(NamedTuple):
  """Of each image; two of them merge by addition. See the module's docstring for the letters.

  conf and entropy sums come as two halves [.., 2] of whole numbers, see `fixed`.
  """

  confusion: Array  # [B, C, C] int32, true class by said class
  scores: Array  # [B, S, 3, K] int32: outcome by bin of the score, ascending certainty
  conf: Array  # [B, P, K, 2] uint32: summed confidence by bin of max_prob, P blocks
  ece: Array  # [B, 2, E, 2] int32: pixels and right ones by bin of max_prob and of 1 - H / log C
  ece_conf: Array  # [B, P, 2, E, 2] uint32: their summed confidence
  losses: Array  # [B, P, 2] float32: summed NLL and Brier score
  image: Array  # [B, P, 3] float32: confidence and entropy of all pixels, entropy of UNKNOWN ones
  pixels: Array  # [B] int32, all pixels, void included
  classwise: Array | None  # [B, C, 2, K] int32: pixels, and those of the class, by bin of its p
  classwise_conf: Array | None  # [B, P, C, K, 2] uint32


class Parts(NamedTuple):
  """Of the softmax of logits [.., C], each [..] float32, precise where probabilities are near 1.

  rest is the sum of exp(l - max) over the other classes, so the likeliest has 1 / (1 + rest).
  """

  said: Array
  top: Array  # the largest logit
  rest: Array
  second: Array  # exp(l - max) of the second likeliest
  entropy: Array


def parts(logits: Array) -> Parts:
  """The first of equally likely classes is `said`."""
  logits = logits.astype(jnp.float32)
  top = jnp.max(logits, -1)
  said = jnp.argmax(logits, -1)
  gap = logits - top[..., None]
  e = jnp.exp(gap)
  others = jnp.where(jnp.arange(logits.shape[-1]) == said[..., None], 0.0, e)
  spread = jnp.where(e > 0, -gap * e, 0.0)
  # one reduction of three: XLA on a CPU takes five times as long over three reductions of one
  merge = lambda a, b: (a[0] + b[0], jnp.maximum(a[1], b[1]), a[2] + b[2])
  zeros = (jnp.float32(0),) * 3
  rest, second, spread = jax.lax.reduce((others, others, spread), zeros, merge, (logits.ndim - 1,))
  return Parts(said, top, rest, second, jnp.log1p(rest) + spread / (1 + rest))


def coordinates(p: Parts, classes: int) -> Array:
  """Scores -> [S, ..] that rise with the model's certainty, in the order of SCORES.

  Ranks are what counts, so each is a monotone function of its score that spreads out both of its
  ends: the log-odds of the largest probability, of the margin and of entropy as a share of log C,
  and asinh of the largest logit and of the energy (log sum exp).
  """
  log = lambda x: jnp.log(jnp.maximum(x, 1e-30))
  return jnp.stack(
    [
      -log(p.rest),
      calmness(p.entropy, classes),
      log(1 - p.second) - log(p.rest + p.second),
      jnp.arcsinh(p.top),
      jnp.arcsinh(p.top + jnp.log1p(p.rest)),
    ]
  )


def calmness(entropy: Array, classes: int) -> Array:
  """Minus the log-odds of an uncertainty in nats as a share of its maximum, log C."""
  log = lambda x: jnp.log(jnp.maximum(x, 1e-30))
  return log(jnp.log(float(classes)) - entropy) - log(entropy)


def bins_of(x: Array, score: str, num_bins: int = BINS) -> Array:
  """A score's coordinate -> its bin; what lies outside the range joins the outermost one."""
  low, high = (-REACH, REACH) if score in ('max_logit', 'energy') else (LOW, HIGH)
  k = jnp.floor((x - low) * (num_bins / (high - low)))
  return jnp.clip(k, 0, num_bins - 1).astype(jnp.int32)


def fixed(x: Array) -> Array:
  """x in [0, 1] -> two uint32 [.., 2], whose sums over 2^22 pixels still fit; see `unfixed`."""
  q = jnp.round(x * (1 << 20)).astype(jnp.uint32)
  return jnp.stack([q >> 10, q & 1023], -1)


def unfixed(halves: Any) -> Any:
  """Summed halves [.., 2] as int64 or float64 -> the sum."""
  return (halves[..., 0] * 1024.0 + halves[..., 1]) / (1 << 20)


def values(logits, labels, counted, unknown=None, disagreement=None, *, ignore=255):
  """What `counts` would bin, pixel by pixel: coordinates [B, S, N], outcomes [B, N] (int8, VOID for
  pixels that do not count) and the largest probability [B, N]. For exact values by sorting."""
  p, labels = parts(logits), jnp.asarray(labels).astype(jnp.int32)
  flags = _flags(logits, labels, unknown, ignore)
  outcome = jnp.where(counted, outcomes(p.said, labels, *flags), VOID).astype(jnp.int8)
  classes = logits.shape[-1]
  x = jnp.moveaxis(coordinates(p, classes), 0, 1)
  if disagreement is not None:
    x = jnp.concatenate([x, calmness(disagreement, classes)[:, None]], 1)
  return x, outcome, 1 / (1 + p.rest)


def outcomes(said: Array, labels: Array, unknown: Array, void: Array) -> Array:
  found = jnp.where(void, VOID, jnp.where(said == labels, RIGHT, WRONG))
  return jnp.where(unknown, UNKNOWN, found)


@functools.partial(jax.jit, static_argnames=('ignore', 'ece_bins', 'classwise'))
def counts(
  logits: Array,
  labels: Array,
  counted: Array,
  unknown: Array | None = None,
  disagreement: Array | None = None,
  *,
  ignore: int | None = 255,
  ece_bins: int = 15,
  classwise: bool = False,
) -> Counts:
  """logits [B, N, C] of any float type, labels [B, N] of any integer type -> Counts.

  counted [B, N] bool: False for pixels that are not looked at at all, such as padding. unknown
  [B, N] bool: of no known class, whatever the label. Labels outside 0 .. C-1 are void.
  disagreement [B, N]: one more score, uncertainty in nats. Probabilities are counted by giving
  their logarithms.
  """
  labels = jnp.asarray(labels).astype(jnp.int32)  # a uint8 label times C would wrap around
  flags = jnp.stack([*_flags(logits, labels, unknown, ignore), counted], -1)
  extra = () if disagreement is None else (disagreement,)
  size = min(labels.shape[1], BLOCK)
  blocks = [_blocks(x, size) for x in (logits, labels, flags, *extra)]
  one = functools.partial(_block, ece_bins=ece_bins, classwise=classwise)
  found = jax.vmap(lambda *image: jax.lax.map(lambda x: one(*x), image))(*blocks)
  total = lambda x: jnp.sum(x, 1)
  return found._replace(
    confusion=total(found.confusion),
    scores=total(found.scores),
    ece=total(found.ece),
    pixels=total(found.pixels),
    classwise=None if found.classwise is None else total(found.classwise),
  )


def _flags(logits, labels, unknown, ignore) -> tuple[Array, Array]:
  unknown = jnp.zeros(labels.shape, bool) if unknown is None else unknown
  void = (labels < 0) | (labels >= logits.shape[-1])
  return unknown, void | (labels == (-1 if ignore is None else ignore))


def _blocks(x: Array, size: int) -> Array:
  """[B, N, ..] -> [B, P, size, ..], filled up with zeros, which for flags means not counted."""
  more = -x.shape[1] % size
  x = jnp.pad(x, ((0, 0), (0, more), *((0, 0),) * (x.ndim - 2)))
  return x.reshape(x.shape[0], -1, size, *x.shape[2:])


def _block(logits, labels, flags, *extra, ece_bins: int, classwise: bool) -> Counts:
  """Counts of one block of pixels [n], without the axes B and P."""
  c, p = logits.shape[-1], parts(logits)
  unknown, void, counted = jnp.moveaxis(flags, -1, 0)
  outcome = outcomes(p.said, labels, unknown, void)
  outcome = jnp.where(counted, outcome, VOID)
  told = (outcome == RIGHT) | (outcome == WRONG)
  conf = 1 / (1 + p.rest)
  drop = jnp.iinfo(jnp.int32).max
  where = jnp.where(told, labels * c + p.said, drop)
  confusion = jnp.zeros(c * c, jnp.int32).at[where].add(1, mode='drop').reshape(c, c)
  x = coordinates(p, c)
  bins = [bins_of(x[i], score) for i, score in enumerate(SCORES)]
  bins += [bins_of(calmness(e, c), EXTRA) for e in extra]
  at = lambda k: jnp.where(outcome == VOID, drop, outcome * BINS + k)
  histogram = lambda k: jnp.zeros(OUTCOMES * BINS, jnp.int32).at[at(k)].add(1, mode='drop')
  calm = jnp.clip(1 - p.entropy / jnp.log(float(c)), 0, 1)
  tables = [_ece(x, outcome == RIGHT, told, ece_bins) for x in (conf, calm)]
  per_class = _classwise(logits, p, labels, told) if classwise else (None, None)
  shown = lambda x: _sum(jnp.where(counted, x, 0.0))
  return Counts(
    confusion=confusion,
    scores=jnp.stack([histogram(k).reshape(OUTCOMES, BINS) for k in bins]),
    conf=_add(jnp.zeros((BINS, 2), jnp.uint32), jnp.where(told, bins[0], drop), fixed(conf)),
    ece=jnp.stack([t[0] for t in tables]),
    ece_conf=jnp.stack([t[1] for t in tables]),
    losses=jnp.stack([_sum(jnp.where(told, x, 0.0)) for x in _losses(logits, p, labels, conf)]),
    image=jnp.stack([shown(conf), shown(p.entropy), shown(p.entropy * (outcome == UNKNOWN))]),
    pixels=jnp.sum(counted, dtype=jnp.int32),
    classwise=per_class[0],
    classwise_conf=per_class[1],
  )


def _add(target: Array, index: Array, values: Array) -> Array:
  return target.at[index].add(values, mode='drop')


def _ece(conf: Array, right: Array, told: Array, bins: int) -> tuple[Array, Array]:
  """Bins (k/E, (k+1)/E]; a confidence of exactly 0 is in none."""
  k = jnp.ceil(conf * bins).astype(jnp.int32) - 1
  k = jnp.where(told & (k >= 0), jnp.minimum(k, bins - 1), bins)
  pair = jnp.stack([jnp.ones_like(k), right.astype(jnp.int32)], -1)
  pixels = _add(jnp.zeros((bins, 2), jnp.int32), k, pair)
  return pixels, _add(jnp.zeros((bins, 2), jnp.uint32), k, fixed(conf))


def _losses(logits: Array, p: Parts, labels: Array, conf: Array) -> tuple[Array, Array]:
  """NLL and Brier score [n]; labels outside the classes are clipped, their pixels do not count."""
  c = logits.shape[-1]
  label = jnp.clip(labels, 0, c - 1)
  logits = logits.astype(jnp.float32)
  own = jnp.take_along_axis(logits, label[:, None], -1)[:, 0]
  squares = jnp.sum(jnp.exp(2 * (logits - p.top[:, None])), -1) * conf**2
  truth = jnp.exp(own - p.top) * conf
  return jnp.log1p(p.rest) + p.top - own, squares - 2 * truth + 1


def _classwise(logits: Array, p: Parts, labels: Array, told: Array) -> tuple[Array, Array]:
  """Each class's probability, binned by its log-odds, against whether the label is that class."""
  n, c = logits.shape
  e = jnp.exp(logits.astype(jnp.float32) - p.top[:, None])
  prob = e / (1 + p.rest)[:, None]
  others = jnp.maximum(1 + p.rest[:, None] - e, 1e-30)
  likeliest = jnp.arange(c) == p.said[:, None]
  odds = jnp.where(likeliest, 1 / jnp.maximum(p.rest, 1e-30)[:, None], e / others)
  odds = jnp.clip(jnp.log(jnp.maximum(odds, 1e-30)), -31.9, 31.9)
  k = jnp.floor((odds + 32) * (BINS / 64)).astype(jnp.int32)
  at = jnp.where(told[:, None], jnp.arange(c) * BINS + k, c * BINS)
  pair = jnp.stack([jnp.ones((n, c), jnp.int32), labels[:, None] == jnp.arange(c)], -1)
  pixels = _add(jnp.zeros((c * BINS, 2), jnp.int32), at, pair.astype(jnp.int32))
  conf = _add(jnp.zeros((c * BINS, 2), jnp.uint32), at, fixed(prob))
  return jnp.moveaxis(pixels.reshape(c, BINS, 2), -1, 1), conf.reshape(c, BINS, 2)


def _sum(x: Array) -> Array:
  """Sum of [n] in pieces of 64, so that float32 rounding does not add up."""
  while x.size > 1:
    x = jnp.pad(x, (0, -x.size % 64)).reshape(-1, 64).sum(-1)
  return x.reshape(())
