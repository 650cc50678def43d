"""Samples from several predictors by turns: deep ensembles, and copies of an image.

Letters as in methods/base.py; K members.
"""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.methods import baselines, sizes
from car_jax.methods.base import Batch, Method, Sampler, Samples, example_keys
from car_jax.typing import Array


@dataclasses.dataclass(frozen=True, order=True)
class Turn:
  """Arrays [.., H, W] mirrored left to right, or not, and then turned by so many quarters."""

  mirrored: bool = False
  quarters: int = 0

  def __call__(self, x: Array) -> Array:
    x = jnp.asarray(x)
    return jnp.rot90(x[..., ::-1] if self.mirrored else x, self.quarters, axes=(-2, -1))

  def back(self, x: Array) -> Array:
    x = jnp.rot90(jnp.asarray(x), -self.quarters, axes=(-2, -1))
    return x[..., ::-1] if self.mirrored else x

  def then(self, other: 'Turn') -> 'Turn':
    """A mirror that follows quarters turns them the other way."""
    quarters = -self.quarters if other.mirrored else self.quarters
    return Turn(self.mirrored != other.mirrored, (other.quarters + quarters) % 4)


# How an image may be turned, by the options of data and the transforms that turn it in training.
TURNS = {'mirror': Turn(True), 'mirror_rows': Turn(True, 2), 'rot90': Turn(False, 1)}


def all_of(turns: Collection[Turn]) -> list[Turn]:
  """What comes of such turns one after another, the image as it is first."""
  group = {Turn()}
  while more := {one.then(other) for one in group for other in turns} - group:
    group |= more
  return sorted(group)


def _of_maps(turn: Callable[[Array], Array], x: Array) -> Array:
  """[.., H, W, C]"""
  return jnp.moveaxis(turn(jnp.moveaxis(jnp.asarray(x), -1, 0)), 0, -1)


@dataclasses.dataclass(frozen=True)
class Member:
  """A method, the place of its state in the mixture's, and how images are turned for it."""

  method: Method
  place: int = 0
  turn: Turn = Turn()


class Mixture(Method):
  """Segmentations are of members by turns, every member with the same weight in all.

  A member with logits gives its class probabilities, which do not differ between draws; any other
  samples of its own. Of fewer samples than members, members are drawn for each image. Its state is
  a tuple of the members'.
  """

  def __init__(self, name: str, members: Sequence[Member]):
    self._name, self._members = name, tuple(members)
    first = self._members[0].method
    self.num_classes, self.ignore_label = first.num_classes, first.ignore_label

  @property
  def reads_black_box(self) -> bool:
    return any(member.method.reads_black_box for member in self._members)

  @property
  def has_windows(self) -> bool:
    return all(member.method.has_windows for member in self._members)

  def without_windows(self) -> 'Mixture':
    whole = (dataclasses.replace(m, method=m.method.without_windows()) for m in self._members)
    return Mixture(self._name, [*whole])

  def predictors(self) -> dict[str, Any]:
    most = max(member.method.own_predictor.together for member in self._members)
    whole = all(member.method.has_logits for member in self._members)
    return {self._name: Sampler(self._predict, whole, len(self._members) * most)}

  def _predict(self, state: Any, batch: Batch, rng: Array, n: int) -> Samples:
    count = len(self._members)
    each = [max(1, len(range(k, n, count))) for k in range(count)]
    by_member = [
      self._of(member, state[member.place], batch, jax.random.fold_in(rng, k), each[k])
      for k, member in enumerate(self._members)
    ]
    probs = jnp.concatenate([s.probs for s in by_member], 1)
    if n < count:
      order = jax.vmap(lambda key: jax.random.permutation(key, count)[:n])(example_keys(rng, batch))
      probs = jnp.take_along_axis(probs, order[:, :, None, None, None], 1)
      return Samples(probs, baselines.uniform(probs.shape[0], n))
    weight = jnp.concatenate([s.weight for s in by_member], 1) / count
    # Of n samples by turns, number i is sample i // K of member i % K.
    first = np.cumsum([0, *each])
    by_turns = np.array([first[i % count] + i // count for i in range(n)])
    return Samples(probs[:, by_turns], weight[:, by_turns])

  def _of(self, member: Member, state: Any, batch: Batch, rng: Array, n: int) -> Samples:
    seen = {**batch, 'image': _of_maps(member.turn, batch['image'])}
    for key in ('label', 'labels', 'black_box'):
      if key in batch:
        seen[key] = member.turn(batch[key])
    if member.method.has_logits:
      probs = jax.nn.softmax(member.method.logits(state, seen))[:, None]
      probs = jnp.broadcast_to(probs, (probs.shape[0], n, *probs.shape[2:]))
      samples = Samples(probs, baselines.uniform(probs.shape[0], n))
    else:
      samples = member.method.own_predictor(state, seen, rng, n)
    probs = sizes.as_labels(samples, seen).probs
    return samples.replace(probs=_of_maps(member.turn.back, probs), marginal=None)
