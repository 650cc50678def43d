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
import numpy as np
from jaxtyping import Bool, Float, Float32, Int8, Int32, Integer, UInt32
from scipy.special import expit

from car_jax.metrics.calibration import piecewise_sum
from car_jax.metrics.histogram import histogram, sums
from car_jax.typing import Array

RIGHT, WRONG, UNKNOWN, VOID = range(4)
OUTCOMES = VOID  # that count
SCORES = ('max_prob', 'entropy', 'margin', 'max_logit', 'energy')
EXTRA = 'disagreement'  # a map that comes with the logits, such as the mutual information
BINS = 16384
COARSE = 256  # bins kept per image, for intervals over images
BLOCK = 1 << 18  # pixels worked on at a time: bounds the memory, and every sum below 2^32
FARTHEST = 1e5  # coordinates beyond it share the outermost bin
# score -> the lowest coordinate of its bins, and how far from 0 bins begin to widen: asinh(x / s)
SPANS = dict(
  max_prob=(0.0, 0.01),
  entropy=(-40.0, 8.0),
  margin=(-40.0, 8.0),
  max_logit=(-FARTHEST, 0.1),
  energy=(-FARTHEST, 0.1),
  disagreement=(-90.0, 8.0),
  any=(-FARTHEST, 1e-4),  # a score of which nothing is known
)
ODDS, ODDS_BINS = 32.0, 8192  # of the classes' own probabilities: log-odds from -ODDS to ODDS
LARGEST = 1 << 10  # of the halves of `fixed`
SMALL = 0.05  # spread of logits below which log C minus entropy is taken from their variance


class Counts(NamedTuple):
  """Of each image; two of them merge by addition. See the module's docstring for the letters.

  conf and entropy sums come as two halves [.., 2] of whole numbers, see `fixed`.
  """

  confusion: Int32[Array, 'B C C']
  """True class by predicted class."""
  scores: Int32[Array, 'B S 3 K']
  """Outcome by bin of the score, ascending certainty."""
  conf: UInt32[Array, 'B P K 2']
  """Summed confidence by bin of max_prob, P blocks."""
  ece: Int32[Array, 'B 2 E 2']
  """Pixels and right ones by bin of max_prob and of 1 - H / log C."""
  ece_conf: UInt32[Array, 'B P 2 E 2']
  """Their summed confidence."""
  losses: Float32[Array, 'B P 2']
  """Summed NLL and Brier score."""
  image: Float32[Array, 'B P 3']
  """Confidence and entropy of all pixels, entropy of UNKNOWN ones."""
  pixels: Int32[Array, ' B']
  """All of them, void ones included."""
  classwise: Int32[Array, 'B C 2 K'] | None
  """Pixels, and those of the class, by bin of its probability, ODDS_BINS in all."""
  classwise_conf: UInt32[Array, 'B P C K 2'] | None


class Parts(NamedTuple):
  """Of the softmax of logits, precise where probabilities are near 1.

  rest is the sum of exp(l - max) over the other classes, so the likeliest has 1 / (1 + rest). It
  and the entropy end at 0 for far logits; lead and calm do not.
  """

  predicted: Integer[Array, '*at']
  top: Float32[Array, '*at']  # the largest logit
  gap: Float32[Array, '*at']  # top minus the second largest
  others: Float32[Array, '*at']  # the sum of exp(l - second largest) over the other classes
  entropy: Float32[Array, '*at']
  calm: Float32[Array, '*at']  # log of (log C - entropy) / entropy

  @property
  def crowd(self) -> Float32[Array, '*at']:
    return jnp.log(self.others)

  @property
  def lead(self) -> Float32[Array, '*at']:
    """top minus the log of the sum of exp of all others: log-odds."""
    return self.gap - self.crowd

  @property
  def rest(self) -> Float32[Array, '*at']:
    return jnp.exp(-self.gap) * self.others


def parts(logits: Float[Array, '*at C']) -> Parts:
  """The first of equally likely classes is `predicted`. An infinite largest logit gives nan."""
  logits = logits.astype(jnp.float32)
  top, predicted, second = _two_largest(logits)
  gap = jnp.where(top < jnp.inf, top - second, jnp.nan)
  other = jnp.arange(logits.shape[-1]) != predicted[..., None]
  # measured from the second, so that the largest exp is 1; from 0 where all others are -inf
  below = logits - jnp.where(second > -jnp.inf, second, 0)[..., None]
  e = jnp.where(other, jnp.exp(below), 0.0)
  spread = jnp.where(e > 0, -below * e, 0.0)
  # one reduction of two: XLA on a CPU takes much longer over two of one
  add = lambda a, b: (a[0] + b[0], a[1] + b[1])
  total, spread = jax.lax.reduce((e, spread), (jnp.float32(0),) * 2, add, (logits.ndim - 1,))
  total = jnp.maximum(total, 1)  # 0 where all others are -inf
  rest = jnp.exp(-gap) * total
  more = gap + spread / total
  entropy = jnp.log1p(rest) + jnp.where(rest > 0, rest * more / (1 + rest), 0.0)
  # entropy / rest, whose two terms stay finite where rest is 0
  ratio = jnp.where(rest > 0, jnp.log1p(rest) / rest, 1) + more / (1 + rest)
  log_entropy = jnp.where(gap < jnp.inf, jnp.log(ratio) - (gap - jnp.log(total)), -jnp.inf)
  calm = _log_calm(logits, top, entropy) - log_entropy
  return Parts(predicted, top, gap, total, entropy, calm)


def image_parts(logits: Float[Array, 'B N C']) -> Parts:
  """`parts` [B, N], some pixels at a time: what `counts` and other scores of pixels share."""
  n = logits.shape[1]
  blocks = _blocks(logits, min(n, BLOCK))
  each = jax.vmap(lambda image: jax.lax.map(parts, image))(blocks)
  return jax.tree.map(lambda x: x.reshape(len(x), -1)[:, :n], each)


def _two_largest(logits: Array) -> tuple[Array, Array, Array]:
  """The largest of the last axis, its first place, and the second largest (tied or not)."""
  none = jnp.float32(-jnp.inf)
  merge = lambda a, b: (
    jnp.maximum(a[0], b[0]),
    jnp.maximum(jnp.minimum(a[0], b[0]), jnp.maximum(a[1], b[1])),
  )
  both = logits, jnp.full_like(logits, none)
  top, second = jax.lax.reduce(both, (none, none), merge, (logits.ndim - 1,))
  return top, jnp.argmax(logits, -1), second


def _log_calm(logits: Array, top: Array, entropy: Array) -> Array:
  """log(log C - entropy).

  Of nearly equal logits the difference is all rounding: theirs is half the variance of the logits,
  but for a share of their spread.
  """
  near = jnp.maximum(logits - top[..., None], -1.0)
  add = lambda a, b: (a[0] + b[0], a[1] + b[1])
  zeros = (jnp.float32(0),) * 2
  sums, squares = jax.lax.reduce((near, near * near), zeros, add, (logits.ndim - 1,))
  count = float(logits.shape[-1])
  variance = squares / count - (sums / count) ** 2
  calm = jnp.where(squares < SMALL**2, variance / 2, jnp.log(count) - entropy)
  return jnp.log(jnp.maximum(calm, 0))


def coordinates(p: Parts, classes: int) -> Float[Array, 'S ...']:
  """Scores that rise with the model's certainty, in the order of SCORES.

  Ranks are what counts, so each is a monotone function of its score that keeps the order of far
  logits and of nearly equal ones: the log-odds of the largest probability (above their minimum), of
  the margin and of entropy as a share of log C; the largest logit; the energy (log mean exp).
  """
  top = p.lead + jnp.log(float(max(classes - 1, 1)))
  margin = jnp.log(-jnp.expm1(-p.gap)) + p.gap - jnp.log1p(jnp.exp(p.crowd))
  energy = p.top + (jnp.log1p(p.rest) - jnp.log(float(classes)))
  return jnp.stack([jnp.maximum(top, 0), p.calm, margin, p.top, energy])


def calmness(entropy: Float[Array, '*at'], classes: int) -> Float[Array, '*at']:
  """Minus the log-odds of an uncertainty in nats as a share of its maximum, log C."""
  log = lambda x: jnp.log(jnp.maximum(x, 0))
  return log(jnp.log(float(classes)) - entropy) - log(entropy)


def bins_of(x: Float[Array, '*at'], score: str, num_bins: int = BINS) -> Int32[Array, '*at']:
  """A score's coordinate -> its bin; what lies outside the range joins the outermost one."""
  low, high = (_stretched(end, score) for end in (SPANS[score][0], FARTHEST))
  k = jnp.floor((_stretched(x, score) - low) * (num_bins / (high - low)))
  return jnp.clip(k, 0, num_bins - 1).astype(jnp.int32)


def _stretched(x: Any, score: str) -> Any:
  """asinh(x / s): as fine as s near 0, of one relative width far from it."""
  far = jnp.abs(x / SPANS[score][1])  # jnp.arcsinh takes several times as long
  return jnp.sign(x) * jnp.log(far + jnp.sqrt(far * far + 1))


def spreads(num_bins: int = BINS, classes: int = 2) -> Float[np.ndarray, ' K']:
  """By how much the largest probability can differ within each bin of max_prob."""
  s = SPANS['max_prob'][1]
  odds = s * np.sinh(np.linspace(0, np.arcsinh(FARTHEST / s), num_bins + 1)) - np.log(classes - 1)
  return np.diff(np.append(expit(odds[:-1]), 1.0))


def odds_bins_of(odds: Float[Array, '*at'], num_bins: int = ODDS_BINS) -> Int32[Array, '*at']:
  """log(p / (1 - p)) -> bins of equal width; what lies outside their range joins the outermost."""
  k = jnp.floor((odds + ODDS) * (num_bins / 2 / ODDS))
  return jnp.clip(k, 0, num_bins - 1).astype(jnp.int32)


def class_spreads(num_bins: int = ODDS_BINS) -> Float[np.ndarray, ' K']:
  """By how much a probability can differ within each bin of `odds_bins_of`; the outermost reach to
  0 and 1."""
  inner = expit(np.linspace(-ODDS, ODDS, num_bins + 1)[1:-1])
  return np.diff(np.concatenate([[0.0], inner, [1.0]]))


def fixed(x: Float[Array, '*at']) -> UInt32[Array, '*at 2']:
  """x in [0, 1] -> two whole numbers, whose sums over 2^22 pixels still fit; see `unfixed`."""
  q = jnp.round(x * (1 << 20)).astype(jnp.uint32)
  return jnp.stack([q >> 10, q & 1023], -1)


def unfixed(halves: Any) -> Any:
  """Summed halves [.., 2] as int64 or float64 -> the sum."""
  return (halves[..., 0] * 1024.0 + halves[..., 1]) / (1 << 20)


def values(
  logits: Float[Array, 'B N C'],
  labels: Integer[Array, 'B N'],
  counted: Bool[Array, 'B N'],
  unknown: Bool[Array, 'B N'] | None = None,
  disagreement: Float[Array, 'B N'] | None = None,
  *,
  ignore: int | None = 255,
) -> tuple[Float[Array, 'B S N'], Int8[Array, 'B N'], Float[Array, 'B N']]:
  """What `counts` would bin, pixel by pixel: coordinates, outcomes (VOID for pixels that do not
  count) and the largest probability. For exact values by sorting. The arguments are those of
  `counts`."""
  p, labels = parts(logits), jnp.asarray(labels).astype(jnp.int32)
  flags = flags_of(logits, labels, unknown, ignore)
  outcome = jnp.where(counted, outcomes(p.predicted, labels, *flags), VOID).astype(jnp.int8)
  classes = logits.shape[-1]
  x = jnp.moveaxis(coordinates(p, classes), 0, 1)
  if disagreement is not None:
    x = jnp.concatenate([x, calmness(disagreement, classes)[:, None]], 1)
  return x, outcome, 1 / (1 + p.rest)


def outcomes(
  predicted: Integer[Array, '*at'],
  labels: Integer[Array, '*at'],
  unknown: Bool[Array, '*at'],
  void: Bool[Array, '*at'],
) -> Integer[Array, '*at']:
  """RIGHT, WRONG, UNKNOWN or VOID of each pixel; unknown goes before void."""
  outcome = jnp.where(void, VOID, jnp.where(predicted == labels, RIGHT, WRONG))
  return jnp.where(unknown, UNKNOWN, outcome)


@functools.partial(jax.jit, static_argnames=('ignore', 'ece_bins', 'classwise'))
def counts(
  logits: Float[Array, 'B N C'],
  labels: Integer[Array, 'B N'],
  counted: Bool[Array, 'B N'],
  unknown: Bool[Array, 'B N'] | None = None,
  disagreement: Float[Array, 'B N'] | None = None,
  *,
  ignore: int | None = 255,
  ece_bins: int = 15,
  classwise: bool = False,
  shared: Parts | None = None,
) -> Counts:
  """All counts of a batch.

  counted: False for pixels that are not looked at at all, such as padding. unknown: of no known
  class, whatever the label. Labels outside 0 .. C-1 are void. disagreement: one more score,
  uncertainty in nats. Probabilities are counted by giving their logarithms. ignore: one more label
  that is void. classwise: also counts each class's probability, in C times as many bins. shared:
  `image_parts` of these logits, where others have made them.
  """
  labels = jnp.asarray(labels).astype(jnp.int32)  # a uint8 label times C would wrap around
  flags = jnp.stack([*flags_of(logits, labels, unknown, ignore), counted], -1)
  extra = () if disagreement is None else (disagreement,)
  size = min(labels.shape[1], BLOCK)
  shared = image_parts(logits) if shared is None else shared
  blocks = jax.tree.map(lambda x: _blocks(x, size), (shared, logits, labels, flags, *extra))
  one = functools.partial(_block, ece_bins=ece_bins, classwise=classwise)
  sums = jax.vmap(lambda *image: jax.lax.map(lambda x: one(*x), image))(*blocks)
  total = lambda x: jnp.sum(x, 1)
  return sums._replace(
    confusion=total(sums.confusion),
    scores=total(sums.scores),
    ece=total(sums.ece),
    pixels=total(sums.pixels),
    classwise=None if sums.classwise is None else total(sums.classwise),
  )


def flags_of(
  logits: Array, labels: Array, unknown: Array | None, ignore: int | None
) -> tuple[Array, Array]:
  """Which pixels [B, N] are of an unknown object, and which labels are void."""
  unknown = jnp.zeros(labels.shape, bool) if unknown is None else unknown
  void = (labels < 0) | (labels >= logits.shape[-1])
  return unknown, void | (labels == (-1 if ignore is None else ignore))


def _blocks(x: Array, size: int) -> Array:
  """[B, N, ..] -> [B, P, size, ..], filled up with zeros, which for flags means not counted."""
  more = -x.shape[1] % size
  x = jnp.pad(x, ((0, 0), (0, more), *((0, 0),) * (x.ndim - 2)))
  return x.reshape(x.shape[0], -1, size, *x.shape[2:])


def _block(p, logits, labels, flags, *extra, ece_bins: int, classwise: bool) -> Counts:
  """Counts of one block of pixels [n], without the axes B and P."""
  c = logits.shape[-1]
  unknown, void, counted = jnp.moveaxis(flags, -1, 0)
  outcome = outcomes(p.predicted, labels, unknown, void)
  outcome = jnp.where(counted, outcome, VOID)
  scored = (outcome == RIGHT) | (outcome == WRONG)
  conf = 1 / (1 + p.rest)
  drop = jnp.iinfo(jnp.int32).max
  where = jnp.where(scored, labels * c + p.predicted, drop)
  confusion = histogram(where, c * c).reshape(c, c)
  x = coordinates(p, c)
  bins = [bins_of(x[i], score) for i, score in enumerate(SCORES)]
  bins += [bins_of(calmness(e, c), EXTRA) for e in extra]
  at = lambda k: jnp.where(outcome == VOID, drop, outcome * BINS + k)
  calm = jnp.clip(1 - p.entropy / jnp.log(float(c)), 0, 1)
  tables = [_ece(x, outcome == RIGHT, scored, ece_bins) for x in (conf, calm)]
  per_class = _classwise(logits, p, labels, scored) if classwise else (None, None)
  shown = lambda x: _sum(jnp.where(counted, x, 0.0))
  return Counts(
    confusion=confusion,
    scores=jnp.stack([histogram(at(k), OUTCOMES * BINS).reshape(OUTCOMES, BINS) for k in bins]),
    conf=sums(jnp.where(scored, bins[0], drop), fixed(conf), BINS, LARGEST),
    ece=jnp.stack([t[0] for t in tables]),
    ece_conf=jnp.stack([t[1] for t in tables]),
    losses=jnp.stack([_sum(jnp.where(scored, x, 0.0)) for x in _losses(logits, p, labels, conf)]),
    image=jnp.stack([shown(conf), shown(p.entropy), shown(p.entropy * (outcome == UNKNOWN))]),
    pixels=jnp.sum(counted, dtype=jnp.int32),
    classwise=per_class[0],
    classwise_conf=per_class[1],
  )


def _add(target: Array, index: Array, values: Array) -> Array:
  return target.at[index].add(values, mode='drop')


def _ece(conf: Array, right: Array, scored: Array, bins: int) -> tuple[Array, Array]:
  """Bins (k/E, (k+1)/E]; a confidence of exactly 0 joins the first."""
  k = jnp.ceil(conf * bins).astype(jnp.int32) - 1
  k = jnp.where(scored, jnp.clip(k, 0, bins - 1), bins)
  pair = jnp.stack([jnp.ones_like(k), right.astype(jnp.int32)], -1)
  return sums(k, pair, bins, 1), sums(k, fixed(conf), bins, LARGEST)


def _losses(logits: Array, p: Parts, labels: Array, conf: Array) -> tuple[Array, Array]:
  """NLL and Brier score [n]; labels outside the classes are clipped, their pixels do not count."""
  c = logits.shape[-1]
  label = jnp.clip(labels, 0, c - 1)
  logits = logits.astype(jnp.float32)
  own = jnp.take_along_axis(logits, label[:, None], -1)[:, 0]
  squares = jnp.sum(jnp.exp(2 * (logits - p.top[:, None])), -1) * conf**2
  truth = jnp.exp(own - p.top) * conf
  return jnp.log1p(p.rest) + p.top - own, squares - 2 * truth + 1


def _classwise(logits: Array, p: Parts, labels: Array, scored: Array) -> tuple[Array, Array]:
  """Each class's probability, binned by its log-odds, against whether the label is that class."""
  n, c = logits.shape
  e = jnp.exp(logits.astype(jnp.float32) - p.top[:, None])
  prob = e / (1 + p.rest)[:, None]
  others = jnp.maximum(1 + p.rest[:, None] - e, 1e-30)
  likeliest = jnp.arange(c) == p.predicted[:, None]
  odds = jnp.where(likeliest, 1 / jnp.maximum(p.rest, 1e-30)[:, None], e / others)
  odds = jnp.log(jnp.maximum(odds, 1e-30))
  k = odds_bins_of(odds)
  at = jnp.where(scored[:, None], jnp.arange(c) * ODDS_BINS + k, c * ODDS_BINS)
  pair = jnp.stack([jnp.ones((n, c), jnp.int32), labels[:, None] == jnp.arange(c)], -1)
  pixels = _add(jnp.zeros((c * ODDS_BINS, 2), jnp.int32), at, pair.astype(jnp.int32))
  conf = _add(jnp.zeros((c * ODDS_BINS, 2), jnp.uint32), at, fixed(prob))
  return jnp.moveaxis(pixels.reshape(c, ODDS_BINS, 2), -1, 1), conf.reshape(c, ODDS_BINS, 2)


def _sum(x: Array) -> Array:
  """Sum of [n]."""
  return piecewise_sum(x[None])[0]
