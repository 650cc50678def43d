"""Stochastic segmentation networks (Monteiro et al., NeurIPS 2020): one normal over all logits.

A net gives each pixel and class a mean, a variance and R numbers more; logits of an image are one
draw of the normal distribution with covariance P P^T + diag(D) over all pixels and classes.
Letters: B images, S samples, H x W pixels, C classes, K logits of a pixel, R rank. Classes stand
before pixels here: where so few are last, CPUs take several times as long for draws and their loss.

Departs from the released code: that also factorises the R x R capacitance matrix, fails where large
regions are alike, and then takes independent normals in silence; neither training nor sampling
needs the matrix, so it is never made here. D is enlarged by 1e-5 twice, as there.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from car_jax import registry
from car_jax.errors import UserError
from car_jax.losses import segmentation
from car_jax.methods import baselines
from car_jax.methods.base import Batch, Logs
from car_jax.methods.sampled import Sampled
from car_jax.methods.train_state import State, full_size
from car_jax.nn import net as nets
from car_jax.nn.composed import Composition
from car_jax.nn.layers import check_two_classes, of_two
from car_jax.nn.mask_classification import MaskHead
from car_jax.nn.resize import resize_bilinear
from car_jax.options import Count, Factor, Positive, Weight, Width
from car_jax.typing import Array

EPSILON = 1e-5


class LowRank(flax.struct.PyTreeNode):
  """A normal distribution over logits: mean, variance [B, K, H, W], factor [B, R, K, H, W].

  variance is that of the part that pixels do not share.
  """

  mean: Array
  variance: Array
  factor: Array

  def drawn(self, shared: Array, own: Array) -> Array:
    """Noise [B, S, R] and [B, S, K, H, W] -> deviations from the mean [B, S, K, H, W]."""
    together = jnp.einsum(
      'brkhw,bsr->bskhw', self.factor, shared, precision=jax.lax.Precision.HIGHEST
    )
    return together + jnp.sqrt(self.variance)[:, None] * own

  @property
  def whole_variance(self) -> Array:
    """[B, K, H, W], of each logit."""
    return self.variance + jnp.square(self.factor).sum(1)


@dataclasses.dataclass(frozen=True)
class SSN(Sampled):
  """`model` is any segmenter of the registry; its last layer gives K (2 + R) numbers for a pixel:
  means, logarithms of variances, and factors, rank by rank.

  One that normalises colours itself (a composed one) takes channels=3 and pixel_mean=pixel_std=
  (0.5, 0.5, 0.5), which leaves images as they are.
  """

  rank: Width = 10
  """Numbers by which pixels vary together."""
  samples: Positive = 20
  """Draws of a training step."""
  antithetic: bool = True
  """Draws in pairs, one on either side of the mean."""
  mean_steps: Count = 0
  """First steps, in which the mean alone learns, by cross entropy."""
  factor_scale: Factor = 1.0
  """Multiplies factors: a small one lets draws begin close to the mean."""
  log_variance_limit: Weight = 0.0
  """Keeps the logarithm of variances within plus and minus this; 0 for no limit."""
  one_logit: bool = False
  """A single logit for the second of two classes, the first class's being 0."""

  step_options = ('mean_steps',)

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.antithetic and self.samples % 2:
      raise UserError(
        f'method.samples is {self.samples}, and draws come in pairs\n'
        f'  give {self.samples + 1}, or method.antithetic=False'
      )
    if self.one_logit:
      check_two_classes('method.one_logit', self.num_classes)
    net = self.net
    if isinstance(net, Composition) and isinstance(net.parts()[2], MaskHead):
      raise UserError(
        f'{type(net.parts()[2]).__name__} gives logarithms of probabilities, no linear layer that '
        'SSN could take apart\n  use another head, or net'
      )

  @property
  def logits_of_pixel(self) -> int:
    return 1 if self.one_logit else self.num_classes

  @property
  def net(self) -> Any:
    return registry.net(self.model, num_classes=self.logits_of_pixel * (2 + self.rank))

  def distribution(self, numbers: Array) -> LowRank:
    """The net's last layer [B, H, W, K (2 + R)] as a distribution."""
    k = self.logits_of_pixel
    mean, log_variance, factor = jnp.split(jnp.moveaxis(numbers, -1, 1), [k, 2 * k], 1)
    if self.log_variance_limit:
      log_variance = jnp.clip(log_variance, -self.log_variance_limit, self.log_variance_limit)
    variance = jnp.exp(log_variance) + 2 * EPSILON
    factor = factor.reshape(factor.shape[0], self.rank, *mean.shape[1:])
    return LowRank(mean, variance, self.factor_scale * factor)

  def classes(self, logits: Array) -> Array:
    """[.., K, H, W] -> logits of every class [.., C, H, W]."""
    return of_two(logits, -3) if self.one_logit else logits

  def probabilities(self, logits: Array) -> Array:
    """[.., K, H, W] -> of every class, which are last: [.., H, W, C]."""
    return jnp.moveaxis(jax.nn.softmax(self.classes(logits), -3), -3, -1)

  def noise(self, key: Array, n: int, height: Any, width: Any) -> tuple[Array, Array]:
    shared, own = jax.random.split(key)
    shape = (n, self.logits_of_pixel, height, width)
    return jax.random.normal(shared, (n, self.rank)), jax.random.normal(own, shape)

  def training_noise(self, key: Array, batch: Batch) -> tuple[Array, Array]:
    b, *size = batch['image'].shape[:3]
    draws = self.samples // 2 if self.antithetic else self.samples
    shared, own = jax.random.split(key)
    own = jax.random.normal(own, (b, draws, self.logits_of_pixel, *size))
    return jax.random.normal(shared, (b, draws, self.rank)), own

  def phase(self, step: int, state: State) -> str | None:
    """'mean' while the mean alone learns."""
    return 'mean' if step < self.mean_steps else None

  def sampled(self, normal: LowRank, noise: tuple[Array, Array]) -> Array:
    """Logits [B, S, C, H, W] of a training step."""
    deviations = normal.drawn(*noise)
    if self.antithetic:
      deviations = jnp.concatenate([deviations, -deviations], 1)
    return self.classes(normal.mean[:, None] + deviations)

  def log_likelihood(self, logits: Array, batch: Batch) -> Array:
    """Of each image's label under each of its logits [B, S, C, H, W], in nats: [B, S]."""
    label, known = (a[:, None] for a in self.labelled(batch))
    return segmentation.log_likelihood(logits, label, known, axis=-3)

  def loss(
    self,
    variables: Any,
    batch: Batch,
    noise: tuple[Array, Array],
    rngs: Any = None,
    phase: str | None = None,
  ) -> tuple[Logs, Logs, Any]:
    """Minus the logarithm of the mean likelihood of a label over draws, Eq. 6 of the paper.

    With `phase` 'mean', minus the logarithm of the likelihood by the mean alone.
    """
    net = self.net
    out, new = net.apply(
      variables,
      self.observed(batch),
      train=True,
      rngs=rngs,
      mutable=['batch_stats', 'auxiliary'],
    )
    normal = self.distribution(full_size(out))
    if phase == 'mean':
      likelihood = self.log_likelihood(self.classes(normal.mean[:, None]), batch)
    else:
      likelihood = self.log_likelihood(self.sampled(normal, noise), batch)
    count = likelihood.shape[1]
    average = jax.nn.logsumexp(likelihood, axis=1) - jnp.log(count)
    parts = {'loss/likelihood': -jnp.mean(average)}
    for name, weight in net.auxiliary_weights.items():
      size, align = batch['label'].shape[-2:], net.align_corners
      low = new['auxiliary'][name][0][..., : self.logits_of_pixel]
      mean = resize_bilinear(low, size, align_corners=align)
      logits = self.classes(jnp.moveaxis(mean, -1, 1))
      parts[f'loss/{name}'] = -weight * jnp.mean(self.log_likelihood(logits[:, None], batch))
    logs = {'max_variance': jnp.max(normal.whole_variance)}
    return parts, logs, new.get('batch_stats', {})

  def normal(self, state: State, batch: Batch) -> LowRank:
    """The distribution of each image's logits."""
    net, x = self.net, self.observed(batch)
    apply = lambda x: full_size(net.apply(state.net.variables, x, train=False))
    return self.distribution(nets.padded(net, apply, x))

  def drawn(self, state: State, batch: Batch, noise: tuple[Array, Array]) -> Array:
    normal = self.normal(state, batch)
    return self.probabilities(normal.mean[:, None] + normal.drawn(*noise))

  def predictors(self) -> dict[str, Any]:
    mean = lambda state, batch: self.probabilities(self.normal(state, batch).mean)
    return super().predictors() | {'mean': baselines.argmax_of(mean)}
