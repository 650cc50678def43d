"""From a method's samples to the small arrays that scores, pictures and saved files need.

Letters: B examples, N samples, M readers, H x W pixels, C classes.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from car_jax.methods import sizes
from car_jax.methods.base import Batch, Method, Sampler, Samples, example_keys
from car_jax.methods.baselines import uniform
from car_jax.metrics.base import Traits
from car_jax.metrics.scores import entropy
from car_jax.metrics.stochastic import known
from car_jax.typing import Array

READERS = 'readers'
DRAWS = Traits()


@dataclasses.dataclass(frozen=True)
class Subject:
  """A row of the report. predict: a Sampler; of what is summarised, a function that gives a
  Prediction in the place of Samples."""

  name: str
  predict: Any
  state: Any
  note: str = ''  # what it is, for the report
  traits: Traits = DRAWS
  label_maps: bool = True  # whether they are saved where maps are
  summarised: bool = False
  own: Mapping[str, Callable] = dataclasses.field(default_factory=dict)  # logits, features


class Prediction(flax.struct.PyTreeNode):
  """Samples, or logits alone; metrics look at it as `metrics.base.Outputs`.

  labels [B, N, H, W], weight [B, N], mean [B, H, W, C] of the samples' probabilities. own
  [B, H, W, C]: class probabilities that the method states itself. Labels are uint8 (int32 from 257
  classes on): the likeliest class of each sample, the lowest of equal ones. disagreement [B, H, W]:
  how much the samples differ, see `predict`. logits [B, H, W, C].
  """

  labels: Any = None
  weight: Any = None
  mean: Any = None
  own: Any = None
  disagreement: Any = None
  logits: Any = None


def subjects(method: Method, state: Any) -> list[Subject]:
  """All predictors of a method on one state, the method's own first."""
  own = {'logits': method.logits} if method.has_logits else {}
  own |= {'features': method.features} if method.has_features else {}
  rows = [
    Subject(name, f, state, traits=Traits(draws=not f.whole), label_maps=f.coherent)
    for name, f in method.predictors().items()
  ]
  return [dataclasses.replace(rows[0], own=own), *rows[1:]]


def label_type(num_classes: int) -> Any:
  return jnp.uint8 if num_classes <= 256 else jnp.int32


def with_label(batch: Batch, ignore: int | None) -> Batch:
  """Adds `label`, the ignored class, where all readers gave it.

  There methods put the class into what they condition on, as in training; elsewhere -1, which no
  method may look at. An ignored label beyond the classes is nothing that a method could say: there
  it predicts as for an image without labels.
  """
  if ignore is None:
    return batch
  absent = (batch['label_weight'] == 0)[..., None, None]
  everyone = jnp.all((batch['labels'] == ignore) | absent, 1)
  return {**batch, 'label': jnp.where(everyone, ignore, -1)}


def without_ignored(samples: Samples, batch: Batch, ignore: int | None) -> Samples:
  """No one says the ignored class, except where all readers do: there everyone does.

  Else a method could leave out of its scores what it chooses.
  """
  if ignore is None:
    return samples
  only = jax.nn.one_hot(ignore, samples.probs.shape[-1])

  def cleared(probs):
    rest = (probs + 1e-12) * (1 - only)
    there = jnp.expand_dims(batch['label'] == ignore, (-1, *range(1, probs.ndim - 3)))
    return jnp.where(there, only, rest / jnp.sum(rest, -1, keepdims=True))

  own = None if samples.marginal is None else cleared(samples.marginal)
  return samples.replace(probs=cleared(samples.probs), marginal=own)


def summarise(samples: Samples, compare: bool = False) -> Prediction:
  """Samples -> Prediction; the probabilities of single samples end here.

  With `compare`, disagreement holds the samples' mean entropy, for `predict` to go on with.
  """
  labels = jnp.argmax(samples.probs, -1).astype(label_type(samples.probs.shape[-1]))
  spread = None
  with jax.default_matmul_precision('highest'):
    mean = jnp.einsum('bnhwc,bn->bhwc', samples.probs, samples.weight)
    if compare:
      spread = jnp.einsum('bnhw,bn->bhw', entropy(samples.probs), samples.weight)
  return Prediction(labels, samples.weight, mean, samples.marginal, spread)


def predict(
  subject: Sampler,
  n: int,
  chunk: int,
  ignore: int | None,
  state: Any,
  batch: Batch,
  rng: Array,
  *,
  compare: bool = False,
) -> Prediction:
  """n samples of every example -> Prediction; at most `chunk` at a time in memory,
  or as many as belong together.


  ignore: the ignored label where it is one of the classes. See `count_of_parts`: part k draws with
  fold_in(rng, k), a single part with `rng` itself. `compare` adds the samples' disagreement:
  entropy of their mean minus their mean entropy in nats, which is the mutual information between
  the class of a pixel and the sample.
  """
  batch = with_label(batch, ignore)
  seen = sizes.as_image(batch)
  samples = lambda key, n: sizes.as_labels(subject(state, seen, key, n), batch)
  draw = lambda key, n: summarise(without_ignored(samples(key, n), batch, ignore), compare)
  parts = count_of_parts(n, chunk, subject.together)
  summary = draw(rng, n) if parts == 1 else _in_parts(draw, parts, n, rng)
  if summary.disagreement is None:
    return summary
  return summary.replace(disagreement=jnp.maximum(entropy(summary.mean) - summary.disagreement, 0))


def count_of_parts(n: int, most: int, least: int) -> int:
  """Into how many parts of `most` samples or fewer, but of `least` at least, n samples are cut:
  the fewest equal ones; where there are none, the fewest, whose sizes then differ by one."""
  counts = range(min(-(-n // most), max(1, n // least)), max(1, n // least) + 1)
  return next((count for count in counts if n % count == 0), counts[0])


def _in_parts(draw: Callable, count: int, n: int, rng: Array) -> Prediction:
  size, larger = divmod(n, count)  # the first ones have one more
  smaller = _alike(draw, jnp.arange(larger, count), size, rng)
  if not larger:
    return smaller
  both = _alike(draw, jnp.arange(larger), size + 1, rng), smaller
  shares = larger * (size + 1) / n, (count - larger) * size / n
  add = lambda xs: None if xs[0] is None else shares[0] * xs[0] + shares[1] * xs[1]
  return Prediction(
    jnp.concatenate([one.labels for one in both], 1),
    jnp.concatenate([share * one.weight for share, one in zip(shares, both, strict=True)], 1),
    add([one.mean for one in both]),
    smaller.own,
    add([one.disagreement for one in both]),
  )


def _alike(draw: Callable, numbers: Array, size: int, rng: Array) -> Prediction:
  """What parts of one size, by their numbers, give together."""
  parts = jax.lax.map(lambda k: draw(jax.random.fold_in(rng, k), size), numbers)
  join = lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])
  own = None if parts.own is None else parts.own[0]
  spread = None if parts.disagreement is None else parts.disagreement.mean(0)
  weight = join(parts.weight) / len(parts.mean)
  return Prediction(join(parts.labels), weight, parts.mean.mean(0), own, spread)


def draw_readers(num_classes: int, ignore: int | None = None):
  """The floor that no model passes in expectation, as a subject: readers of the same image, drawn.

  n draws with replacement from an image's own readers, to be scored against these readers. It
  needs no model: `state` is not used. It shows how much of a score is left to chance and to the
  finite number of samples. Where the drawn reader gives the `ignore` label it says what the first
  reader who knows does.
  """

  def floor(state: Any, batch: Batch, rng: Array, n: int) -> Prediction:
    weight, readers = batch['label_weight'], jnp.asarray(batch['labels'])
    if ignore is not None:
      knows = known(readers, weight, ignore)
      first = jnp.take_along_axis(readers, jnp.argmax(knows, 1)[:, None], 1)
      readers = jnp.where(readers == ignore, first, readers)

    def draw(key, w):
      return jax.random.choice(jax.random.fold_in(key, 0), len(w), (n,), p=w / jnp.sum(w))

    drawn = jax.vmap(draw)(example_keys(rng, batch), weight)  # [B, n]
    labels = jnp.take_along_axis(readers, drawn[:, :, None, None], 1)
    counts = jax.nn.one_hot(drawn, weight.shape[1]).mean(1)  # [B, M]
    mean = shares(readers, counts, num_classes)
    return Prediction(labels.astype(label_type(num_classes)), uniform(len(weight), n), mean, None)

  return floor


def shares(labels: Array, weight: Array, num_classes: int) -> Array:
  """labels [B, L, H, W] and their weight [B, L] -> the weight of each class [B, H, W, C]."""
  classes = jnp.arange(num_classes)

  def add(k, total):
    return total + weight[:, k, None, None, None] * (labels[:, k, ..., None] == classes)

  start = jnp.zeros((*labels[:, 0].shape, num_classes))
  return jax.lax.fori_loop(0, weight.shape[1], add, start)
