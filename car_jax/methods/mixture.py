"""Samples from several predictors by turns: deep ensembles, and copies of an image.

Letters as in methods/base.py; K members.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from car_jax.methods import baselines
from car_jax.methods.base import Batch, Method, Samples, example_keys
from car_jax.typing import Array

Turn = Callable[[Array], Array]  # of arrays [.., H, W]


@dataclasses.dataclass(frozen=True)
class Member:
  """A method, the place of its state in the mixture's, how images are turned and maps back."""

  method: Method
  place: int = 0
  turn: Turn = lambda x: x
  back: Turn = lambda x: x


def turned(turn: Turn, x: Array) -> Array:
  """[.., H, W, C]"""
  return jnp.moveaxis(turn(jnp.moveaxis(jnp.asarray(x), -1, 0)), 0, -1)


# How an image may be turned, by the options of data that turn it in training; rot90 square ones.
MIRRORED: Turn = lambda x: x[..., ::-1]
UPSIDE_DOWN: Turn = lambda x: x[..., ::-1, :]
QUARTER: Turn = lambda x: jnp.rot90(x, axes=(-2, -1))
BACK: Turn = lambda x: jnp.rot90(x, -1, axes=(-2, -1))
TURNS = {
  'mirror': ((MIRRORED, MIRRORED),),
  'mirror_rows': ((UPSIDE_DOWN, UPSIDE_DOWN),),
  'rot90': ((QUARTER, BACK), (BACK, QUARTER)),
}


class Mixture(Method):
  """Segmentation n is of member n modulo K, every member with the same weight in all.

  A member with logits gives its class probabilities, which do not differ between draws; any other
  samples of its own. Of fewer samples than members, members are drawn for each image. Its state is
  a tuple of the members'.
  """

  def __init__(self, name: str, members: Sequence[Member]):
    self._name, self._members = name, tuple(members)
    first = self._members[0].method
    self.num_classes, self.ignore_label = first.num_classes, first.ignore_label
    whole = all(member.method.has_logits for member in self._members)
    self.whole_distributions = (name,) if whole else ()

  @property
  def reads_black_box(self) -> bool:
    return any(member.method.reads_black_box for member in self._members)

  def predictors(self) -> dict[str, Any]:
    return {self._name: self._predict}

  def _predict(self, state: Any, batch: Batch, rng: Array, n: int) -> Samples:
    count = len(self._members)
    each = -(-n // count)
    by_member = [
      self._of(member, state[member.place], batch, jax.random.fold_in(rng, k), each)
      for k, member in enumerate(self._members)
    ]
    probs = jnp.stack([s.probs for s in by_member], 2)
    weight = jnp.stack([s.weight for s in by_member], 2)
    probs, weight = (a.reshape(a.shape[0], each * count, *a.shape[3:]) for a in (probs, weight))
    if n < count:
      order = jax.vmap(lambda key: jax.random.permutation(key, count)[:n])(example_keys(rng, batch))
      probs = jnp.take_along_axis(probs, order[:, :, None, None, None], 1)
      return Samples(probs, baselines.uniform(probs.shape[0], n))
    probs, weight = probs[:, :n], weight[:, :n]
    turns = jnp.arange(n) % count
    sums = jax.nn.one_hot(turns, count).T @ weight.T  # [K, B]
    return Samples(probs, weight / sums[turns].T / count)

  def _of(self, member: Member, state: Any, batch: Batch, rng: Array, n: int) -> Samples:
    seen = {**batch, 'image': turned(member.turn, batch['image'])}
    for key in ('label', 'labels', 'black_box'):
      if key in batch:
        seen[key] = member.turn(batch[key])
    if member.method.has_logits:
      probs = jax.nn.softmax(member.method.logits(state, seen))[:, None]
      probs = jnp.broadcast_to(probs, (probs.shape[0], n, *probs.shape[2:]))
      samples = Samples(probs, baselines.uniform(probs.shape[0], n))
    else:
      predict = next(iter(member.method.predictors().values()))
      samples = predict(state, seen, rng, n)
    return samples.replace(probs=turned(member.back, samples.probs), marginal=None)
