"""From a method's samples to the small arrays that scores, pictures and saved files need.

Letters: B examples, N samples, M readers, H x W pixels, C classes.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from car_jax.methods.base import Batch, Method, Samples, example_keys
from car_jax.methods.baselines import uniform
from car_jax.metrics.base import Traits
from car_jax.metrics.scores import entropy
from car_jax.metrics.stochastic import known
from car_jax.typing import Array

READERS = 'readers'


DRAWS = Traits()


@dataclasses.dataclass(frozen=True)
class Subject:
  """A row of the report: predict(state, batch, rng, n) -> Samples as in methods/base.py.

  summarised: predict gives a Prediction instead, of as many samples as there are.
  """

  name: str
  predict: Callable[[Any, Batch, Array, int], Any]
  state: Any
  note: str = ''  # what it is, for the report
  traits: Traits = DRAWS
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
    Subject(name, f, state, traits=Traits(draws=name not in method.whole_distributions))
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
  subject: Callable,
  n: int,
  chunk: int,
  ignore: int | None,
  state: Any,
  batch: Batch,
  rng: Array,
  *,
  compare: bool = False,
) -> Prediction:
  """n samples of every example -> Prediction; never more than `chunk` at a time in memory.

  subject(state, batch, key, n) gives Samples. ignore: the ignored label where it is one of the
  classes.
  Parts are equal, so their size is the largest divisor of n up to `chunk`; part k draws with
  fold_in(rng, k). A single part draws with `rng` itself. `compare` adds the samples' disagreement:
  entropy of their mean minus their mean entropy in nats, which is the mutual information between
  the class of a pixel and the sample.
  """
  size = max(d for d in range(1, min(n, chunk) + 1) if n % d == 0)
  batch = with_label(batch, ignore)
  samples = lambda key, n: without_ignored(subject(state, batch, key, n), batch, ignore)
  draw = lambda key, n: summarise(samples(key, n), compare)
  summary = draw(rng, n) if size == n else _in_parts(draw, size, n, rng)
  if summary.disagreement is None:
    return summary
  return summary.replace(disagreement=jnp.maximum(entropy(summary.mean) - summary.disagreement, 0))


def _in_parts(draw: Callable, size: int, n: int, rng: Array) -> Prediction:
  part = lambda k: draw(jax.random.fold_in(rng, k), size)
  parts = jax.lax.map(part, jnp.arange(n // size))
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
