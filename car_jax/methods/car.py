"""CAR: calibrated adversarial refinement (Kassapis et al., ICCV 2021, arXiv 2006.13144).

A calibration net F gives class probabilities, trained by cross entropy. A generator G draws whole
segmentations from image, F's probabilities and a latent z. A discriminator D judges pairs of image
and segmentation. A calibration loss pulls the mean of several draws onto F's probabilities, so that
the draws' frequencies are the readers' and no mode is lost.

Letters: B images, N latents per image, H x W pixels, C classes, Z latent size.

Departures from the published code: a frozen F runs in inference mode (there it kept dropping out
and drifting); F's loss carries no weight (there it was applied twice, and Adam ignores it but for
eps); the score of a batch of one keeps its axis.
"""

import dataclasses
from typing import Annotated, Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from car_jax import registry
from car_jax.errors import UserError
from car_jax.losses import adversarial, segmentation
from car_jax.methods import baselines
from car_jax.methods.base import Batch, Logs, Method, Samples, example_keys
from car_jax.methods.train_state import Recomputing, TrainState, create
from car_jax.nn import net as nets
from car_jax.optim import Optimizer, optimizer
from car_jax.options import Count, Group, Net, Optim, Positive, Range, Share, Weight
from car_jax.typing import Array


class State(flax.struct.PyTreeNode):
  """What training changes. An absent net is None; `accuracy` is D's in the step before."""

  step: Array
  calnet: TrainState | None
  generator: TrainState
  discriminator: TrainState | None
  accuracy: Array


class Fakes(NamedTuple):
  """The first sample of each image [B, H, W, C], and D's scores of them [B], None without D."""

  maps: Array
  scores: Array | None


@dataclasses.dataclass(frozen=True)
class Optimizers(Group):
  """config.method.optim of CAR: one of each net."""

  calnet: Optim = dataclasses.field(default_factory=lambda: dict(name='adam'))
  """The calibration net's optimizer."""
  generator: Optim = dataclasses.field(default_factory=lambda: dict(name='adam'))
  """The generator's optimizer."""
  discriminator: Optim = dataclasses.field(default_factory=lambda: dict(name='adam'))
  """The discriminator's optimizer."""


@dataclasses.dataclass(frozen=True)
class CAR(Recomputing, Method):
  """The nets are entries of the registry, or None to leave a stage out (then its weight must be 0).

  D is updated in the first `critic_steps` of every `critic_steps + rest_steps` steps, unless it was
  right about at least `accuracy_cap` of the step before; G and F are updated in every step.
  """

  num_classes: int
  steps_per_epoch: int
  calnet: Net | None
  """The calibration net F; None for none."""
  generator: Net
  """The refinement net G."""
  discriminator: Net | None
  """The critic D; None for none."""
  optim: Optimizers = dataclasses.field(default_factory=dict)  # type: ignore[assignment]
  """An optimizer for each of them."""
  samples: Positive = 5
  """Samples of an image in training."""
  adversarial_weight: Weight = 10.0
  """Weight of the adversarial loss."""
  calibration_weight: Weight = 5.0
  """Weight of the loss that pulls the samples' mean onto F's probabilities."""
  pixel_weight: Weight = 0.0
  """Weight of the first sample's cross entropy."""
  complexity_weight: Weight = 0.0
  """Weight of the KL divergence of the VAE generator's latent."""
  r1_weight: Weight = 10.0
  """Weight of the penalty on D's gradient at real pairs."""
  critic_steps: Count = 50
  """Steps of a cycle in which D learns."""
  rest_steps: Count = 200
  """Steps of a cycle in which it does not."""
  accuracy_cap: Share = 0.85
  """D rests where it was right about as many pairs in the step before."""
  freeze_calnet: bool = False
  """F does not learn."""
  temperature: Annotated[float, Range(1e-3, 1e3)] = 1.0
  """Divides F's logits wherever its probabilities are used."""
  ignore_label: int | None = None  # such pixels are given to F's and G's output

  training_parts = ('discriminator', 'accuracy')
  reads_black_box = True  # type: ignore[assignment]

  def __post_init__(self):
    if self.critic_steps + self.rest_steps < 1:
      raise UserError('method.critic_steps and method.rest_steps make a cycle of at least 1 step')
    if self.complexity_weight > 0 and not hasattr(self.net('generator'), 'reparameterize'):
      raise UserError('method.complexity_weight needs the generator unet_vae_generator')
    for net, weight in (('calnet', 'calibration'), ('discriminator', 'adversarial')):
      if getattr(self, net) is None and getattr(self, f'{weight}_weight') > 0:
        raise UserError(f'method.{net} is None, so method.{weight}_weight must be 0')
    if max(self.adversarial_weight, self.calibration_weight, self.pixel_weight) <= 0:
      raise UserError(
        'the weights of method leave nothing for the generator to learn from\n'
        '  to train a calibration net alone use the method supervised'
      )

  def net(self, which: str) -> Any:
    return registry.net(getattr(self, which), num_classes=self.num_classes)

  def optimizer(self, which: str) -> Optimizer:
    spec: Any = self.optim  # as configs have it, a dict
    return optimizer(spec.get(which, {}), self.steps_per_epoch)

  def init(self, seed: int, batch: Batch) -> State:
    image = batch['image']
    pair = np.zeros((*image.shape[:3], image.shape[-1] + self.num_classes), np.float32)
    seen = pair if 'black_box' in batch else image  # nets need shapes only
    condition = seen if self.calnet is None else pair
    generator = self.net('generator')
    z = np.zeros((len(image), 1, generator.latent), np.float32)

    def begin(which, *inputs):
      if getattr(self, which) is None:
        return None
      return create(self.net(which), self.optimizer(which), seed, *inputs, train=False)

    return State(
      step=np.int32(0),
      calnet=begin('calnet', seen),
      generator=begin('generator', condition, z),
      discriminator=begin('discriminator', pair),
      accuracy=np.float32(0),
    )

  def _observed(self, batch: Batch) -> Array:
    """The image, with the one-hot map of a black-box segmenter where the data set has one."""
    if 'black_box' not in batch:
      return batch['image']
    return jnp.concatenate(
      [batch['image'], jax.nn.one_hot(batch['black_box'], self.num_classes)], -1
    )

  def _keep_ignored(self, probs: Array, label: Array | None) -> Array:
    """Gives ignored pixels of probs [B, ..., H, W, C] their one-hot class, without gradient.

    A label beyond the classes is all zeros there, as in the map of the reader that D compares with:
    D cannot tell the two apart by them.
    """
    if self.ignore_label is None or label is None:
      return probs
    extra = probs.ndim - label.ndim - 1
    mask = (label == self.ignore_label).reshape(len(label), *[1] * extra, *label.shape[1:], 1)
    return jnp.where(mask, jax.nn.one_hot(self.ignore_label, self.num_classes), probs)

  def calibrated(self, logits: Array, label: Array | None = None) -> Array:
    """F's class probabilities [B, H, W, C].

    Where an ignored label is none of the classes, ignored pixels keep F's own probabilities: G sees
    the same in training as for an image without labels, and no loss looks there.
    """
    probs = jax.nn.softmax(logits / self.temperature)
    return probs if self.ignored_class is None else self._keep_ignored(probs, label)

  def _condition(self, batch: Batch, probs: Array | None) -> Array:
    return self._observed(batch) if probs is None else jnp.concatenate([batch['image'], probs], -1)

  def draw(
    self, variables: Any, condition: Array, z: Array, label: Array | None, train: Array | None
  ) -> tuple[Array, Any, Array]:
    """-> samples [B, N, H, W, C], new batch statistics, KL of the latent (0 without one).

    `train` is the dropout key, or None for inference.
    """
    net = self.net('generator')
    if train is None:
      logits_of = lambda out: out[0] if isinstance(out, tuple) else out
      draw = lambda x: logits_of(net.apply(variables, x, z, train=False))
      logits, latent, new = nets.padded(net, draw, condition), [], variables
    else:
      kw = dict(rngs={'dropout': train}, mutable=['batch_stats'])
      out, new = net.apply(variables, condition, z, train=True, **kw)
      logits, *latent = out if isinstance(out, tuple) else (out,)
    kl = adversarial.gaussian_kl(*latent) if latent else jnp.float32(0)
    return self._keep_ignored(jax.nn.softmax(logits), label), new['batch_stats'], kl

  def _score(self, params: Any, image: Array, maps: Array, rng: Array) -> Array:
    """D's scores of image [B, H, W, 3] with maps [B, N, H, W, C] or [B, H, W, C]: flat [B * N]."""
    if maps.ndim == 5:
      image = jnp.broadcast_to(image[:, None], (*maps.shape[:4], image.shape[-1]))
    pairs = jnp.concatenate([image, maps], -1).reshape(-1, *maps.shape[-3:-1], 3 + maps.shape[-1])
    return self._judge(params, pairs, rng)

  def _judge(self, params: Any, pairs: Array, rng: Array) -> Array:
    net = self.net('discriminator')
    return net.apply({'params': params}, pairs, train=True, rngs={'dropout': rng})

  def phase(self, step: int, state: Any = None) -> str:
    """'critic' while it is D's turn to learn, else 'rest'."""
    turn = step % (self.critic_steps + self.rest_steps) < self.critic_steps
    return 'critic' if turn and self.discriminator is not None else 'rest'

  def step(
    self, state: State, batch: Batch, rng: Array, phase: str = 'critic'
  ) -> tuple[State, Logs]:
    z_key, dropout = jax.random.split(rng)
    latent = self.net('generator').latent
    z = jax.random.normal(z_key, (len(batch['image']), self.samples, latent))
    return self.update(state, batch, z, dropout, phase)

  def update(
    self, state: State, batch: Batch, z: Array, rng: Array, phase: str
  ) -> tuple[State, Logs]:
    """One update of F, then G, then (in the critic phase) D, with latents z [B, N, Z]."""
    f_key, g_key, d_key = jax.random.split(rng, 3)
    calnet, probs, logs = self._update_calnet(state, batch, f_key)
    generator, fakes, g_logs = self._update_generator(state, batch, probs, z, (g_key, d_key))
    fakes = jax.lax.stop_gradient(fakes)
    discriminator, d_logs = self._update_discriminator(state, batch, fakes, d_key, phase)
    accuracy = d_logs.get('discriminator/accuracy', state.accuracy)
    new = State(state.step + 1, calnet, generator, discriminator, accuracy)
    return new, logs | g_logs | d_logs

  def _update_calnet(self, state, batch, rng) -> tuple[TrainState | None, Array | None, Logs]:
    """Cross entropy on F; the probabilities handed on are those from before the update."""
    if self.calnet is None:
      return None, None, {}
    net, label = self.net('calnet'), batch['label']
    mask = None if self.ignore_label is None else label != self.ignore_label

    def loss_of(params):
      kw = {} if self.freeze_calnet else dict(rngs={'dropout': rng}, mutable=['batch_stats'])
      variables = {'params': params, 'batch_stats': state.calnet.batch_stats}
      out = net.apply(variables, self._observed(batch), train=bool(kw), **kw)
      logits, new = out if kw else (out, variables)
      return segmentation.cross_entropy(logits, label, mask), (logits, new['batch_stats'])

    if self.freeze_calnet:
      loss, (logits, _) = loss_of(state.calnet.params)
      updated = state.calnet
    else:
      differentiated = jax.value_and_grad(self.recomputed(loss_of), has_aux=True)
      out, grads = differentiated(state.calnet.params)
      loss, (logits, stats) = out
      updated = self._descend('calnet', state, grads, stats)
    probs = jax.lax.stop_gradient(self.calibrated(logits, label))
    return updated, probs, {'loss/calnet': loss}

  def _update_generator(self, state, batch, probs, z, keys) -> tuple[TrainState, Fakes, Logs]:
    """-> G after its update, its samples from before it, logs."""
    condition, label = self._condition(batch, probs), batch['label']
    mask = None if self.ignore_label is None else label != self.ignore_label

    def loss_of(params):
      variables = {'params': params, 'batch_stats': state.generator.batch_stats}
      samples, stats, kl = self.draw(variables, condition, z, label, keys[0])
      terms, scores = {}, None
      if self.adversarial_weight > 0:
        scores = self._score(state.discriminator.params, batch['image'], samples, keys[1])
        terms['adversarial'] = self.adversarial_weight * adversarial.nonsaturating(scores)
      if self.calibration_weight > 0:
        divergence = adversarial.calibration_kl(samples.mean(1), probs, mask)
        terms['calibration'] = self.calibration_weight * divergence
      if self.pixel_weight > 0:
        pixel = segmentation.negative_log_probability(samples[:, 0], label, mask)
        terms['pixel'] = self.pixel_weight * pixel
      if self.complexity_weight > 0:  # rises from 0 to 1 in every epoch, as published
        ramp = (state.step % self.steps_per_epoch) / self.steps_per_epoch
        terms['complexity'] = self.complexity_weight * ramp * kl
      return sum(terms.values()), (terms, samples, scores, stats)

    differentiated = jax.grad(self.recomputed(loss_of), has_aux=True)
    grads, (terms, samples, scores, stats) = differentiated(state.generator.params)
    spread = jnp.mean(jnp.var(samples, axis=1))
    logs = {f'loss/{k}': v for k, v in terms.items()} | {'generator/sample_variance': spread}
    first = None if scores is None else scores.reshape(samples.shape[:2])[:, 0]
    return self._descend('generator', state, grads, stats), Fakes(samples[:, 0], first), logs

  def _update_discriminator(
    self, state, batch, fakes, rng, phase
  ) -> tuple[TrainState | None, Logs]:
    """Scores real against fake in every step; learns from it in the critic phase.

    Where it does not learn, the fakes' scores are those that G has had.

    The phase is a compiled version of the step, not a jax.lax.cond: XLA on a CPU does not bring
    convolutions inside a conditional into their fast form, and gradients take ten times longer.
    """
    if self.discriminator is None:
      return None, {}
    image, real = batch['image'], jax.nn.one_hot(batch['label'], self.num_classes)

    def loss_of(params, fake_scores=None):
      score = lambda maps: self._score(params, image, maps, rng)
      scores = score(real), score(fakes.maps) if fake_scores is None else fake_scores
      loss = adversarial.critic(*scores)
      return loss, (loss, adversarial.critic_accuracy(*scores))

    def penalty_of(params):
      return jnp.mean(adversarial.r1_penalty(lambda x: self._judge(params, x, rng), pair))

    if phase == 'rest':
      _, (loss, right) = loss_of(state.discriminator.params, fakes.scores)
      updated, r1, allowed = state.discriminator, jnp.float32(0), jnp.float32(0)
    else:
      pair = jnp.concatenate([image, real], -1)
      params = state.discriminator.params
      grads, (loss, right) = jax.grad(self.recomputed(loss_of), has_aux=True)(params)
      r1, r1_grads = jax.value_and_grad(self.recomputed(penalty_of))(params)
      grads = jax.tree.map(lambda g, r: g + self.r1_weight * r, grads, r1_grads)
      learnt = self._descend('discriminator', state, grads, state.discriminator.batch_stats)
      before = jnp.where(state.step % self.steps_per_epoch == 0, 0.0, state.accuracy)
      allowed = before < self.accuracy_cap
      keep = lambda new, old: jnp.where(allowed, new, old)
      updated = jax.tree.map(keep, learnt, state.discriminator)
      r1 = jnp.where(allowed, r1, 0.0)
    return updated, {
      'loss/discriminator': loss,
      'loss/r1': r1,
      'discriminator/accuracy': right,
      'discriminator/updated': jnp.asarray(allowed, jnp.float32),
    }

  def _descend(self, which: str, state: State, grads: Any, stats: Any) -> TrainState:
    return getattr(state, which).apply_gradients(self.optimizer(which), state.step, grads, stats)

  def probabilities(self, state: State, batch: Batch) -> Array | None:
    """F's probabilities [B, H, W, C] in inference mode; None without an F."""
    if state.calnet is None:
      return None
    net, variables = self.net('calnet'), state.calnet.variables
    apply = lambda x: net.apply(variables, x, train=False)
    logits = nets.padded(net, apply, jnp.asarray(self._observed(batch)))
    return self.calibrated(logits, batch.get('label'))

  def predictors(self) -> dict[str, Any]:
    def car(state: State, batch: Batch, rng: Array, n: int) -> Samples:
      probs = self.probabilities(state, batch)
      latent = self.net('generator').latent
      keys = example_keys(rng, batch)
      z = jax.vmap(lambda key: jax.random.normal(key, (n, latent)))(keys)
      condition = self._condition(batch, probs)
      label = batch.get('label')
      samples, *_ = self.draw(state.generator.variables, condition, z, label, None)
      return Samples(samples, baselines.uniform(z.shape[0], n), probs)

    if self.calnet is None:
      return {'samples': car}
    return {
      'samples': car,
      'calibration net, argmax': baselines.argmax_of(self.probabilities),
      'calibration net, independent pixels': baselines.pixels_of(self.probabilities),
    }
