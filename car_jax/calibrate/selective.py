"""Selective scaling: one temperature for pixels judged wrong, another for the rest.

After Wang, Gong and Liu (arXiv 2212.12053), with three differences. Their judge sees the class
probabilities, ours a few numbers that do not depend on the classes' order, so that it can be small.
They leave the right pixels alone (T = 1) and choose the other temperature by hand; here both are of
least NLL. And the temperatures are fitted on images that the judge has not seen, for it is surer
than it should be on those it has.

Letters: B images, H x W or S pixels, N pixels, C classes, E numbers of evidence.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from car_jax.calibrate import temperature
from car_jax.calibrate.base import Sample
from car_jax.calibrate.temperature import flat
from car_jax.nn.init import initialize
from car_jax.nn.mlp import MLP
from car_jax.typing import Array

JUDGE: Any = MLP(widths=(16, 1))
LARGEST = 5  # logits that the judge sees
STEPS, BATCH, RATE = 600, 2048, 5e-3
MOST_PIXELS = 1 << 19  # that the judge learns from


class Selective(flax.struct.PyTreeNode):
  """Logits divided by table[0] where they are judged right, by table[1] where wrong; table [2].

  The prediction stays. judge: parameters of the MLP; mean and deviation [E] of its inputs.
  """

  judge: Any
  mean: Array
  deviation: Array
  table: Array

  @property
  def temperatures(self) -> Array:
    return self.table

  def judged_wrong(self, logits: Array) -> Array:
    """logits [..., C] -> [...] bool: more likely wrong than right."""
    seen = (evidence(logits) - self.mean) / self.deviation
    score: Any = JUDGE.apply({'params': self.judge}, seen)
    return score[..., 0] > 0

  def apply(
    self, logits: Array, *, image: Array | None = None, features: Array | None = None
  ) -> Array:
    return logits / jnp.where(self.judged_wrong(logits), self.table[1], self.table[0])[..., None]


def evidence(logits: Array) -> Array:
  """logits [..., C] -> [..., E]: log-odds of the likeliest class, entropy, its margin over the
  second in probability, and how far the next largest logits lie below."""
  largest = jax.lax.top_k(logits, min(LARGEST, logits.shape[-1]))[0]
  logp = jax.nn.log_softmax(logits)
  p = jnp.exp(logp)
  likeliest = jax.nn.one_hot(jnp.argmax(logits, -1), logits.shape[-1], dtype=bool)
  others = jnp.sum(jnp.where(likeliest, 0, p), -1)  # 1 - p of the likeliest would cancel
  odds = jnp.max(logp, -1) - jnp.log(jnp.maximum(others, 1e-30))
  gaps = largest[..., 1:] - largest[..., :1]
  margin = jnp.max(p, -1) * (1 - jnp.exp(gaps[..., 0]))
  return jnp.concatenate([jnp.stack([odds, -jnp.sum(p * logp, -1), margin], -1), gaps], -1)


def fit(sample: Sample, *, judge_share: float = 0.5, seed: int = 0) -> Selective:
  """The judge learns from a share of the images (of the pixels, where there is but one image)."""
  pixels = flat(sample)
  usable = pixels.labels >= 0
  per_image = sample.labels.shape[1]
  rng = np.random.default_rng(seed)
  count, each = (sample.images, per_image) if sample.images > 1 else (len(usable), 1)
  chosen = rng.permutation(count)[: max(1, min(count - 1, round(judge_share * count)))]
  learns = np.repeat(np.isin(np.arange(count), chosen), each)
  index = np.flatnonzero(usable & learns)
  index = np.sort(rng.permutation(index)[:MOST_PIXELS])
  judge = _learnt(pixels, index, seed)
  parts = temperature.each_block(
    lambda logits, _: jax.jit(Selective.judged_wrong)(judge, logits),
    pixels,
    temperature.NEWTON_BLOCK,
  )
  wrong = np.concatenate([*parts])[: len(pixels)].astype(np.int64)
  rest = temperature.Pixels(pixels.logits, np.where(learns, -1, pixels.labels))
  table = temperature.group_temperatures(rest, wrong, 2)
  return judge.replace(table=table.astype(np.float32))


def _learnt(pixels: temperature.Pixels, index: np.ndarray, seed: int) -> Selective:
  """The judge after its training, with temperatures of 1."""
  seen = np.asarray(jax.jit(evidence)(np.asarray(pixels.logits[index], np.float32)))
  wrong = np.argmax(pixels.logits[index], -1) != pixels.labels[index]
  few = len(seen) == 0
  mean = np.zeros(seen.shape[1], np.float32) if few else seen.mean(0)
  deviation = np.ones_like(mean) if few else seen.std(0) + 1e-3
  params = initialize(JUDGE, seed, mean)['params']
  if not few:
    params = _trained(params, (seen - mean) / deviation, wrong, jax.random.key(seed))
  return Selective(jax.device_get(params), mean, deviation, np.ones(2, np.float32))


@jax.jit
def _trained(params: Any, seen: Array, wrong: Array, rng: Array) -> Any:
  optimizer = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))

  def loss_of(params, rows):
    score = JUDGE.apply({'params': params}, seen[rows])[:, 0]
    return jnp.mean(optax.sigmoid_binary_cross_entropy(score, wrong[rows].astype(jnp.float32)))

  def step(carry, key):
    params, state = carry
    rows = jax.random.randint(key, (BATCH,), 0, len(seen))
    updates, state = optimizer.update(jax.grad(loss_of)(params, rows), state)
    return (optax.apply_updates(params, updates), state), None

  carry = params, optimizer.init(params)
  return jax.lax.scan(step, carry, jax.random.split(rng, STEPS))[0][0]
