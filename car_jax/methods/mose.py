"""Mixture of stochastic experts (Gao et al., ICLR 2023): experts, each with its probability.

Samples and annotations are two measures on segmentations; training minimises what it costs to
transport one into the other, and a divergence that teaches the gate how much mass each expert got.
Letters: B images, M readers, K experts, S samples of each, N = K S, L latent size, H x W pixels, C
classes.

Departs from the released code: schedules follow each epoch's mean loss (there, the mean since the
start of training, which hardly ever stops falling; `schedule_metric='running'`); readers may differ
in number; a prediction needs no label.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from car_jax import schedules
from car_jax.errors import UserError
from car_jax.losses import transport
from car_jax.methods import baselines
from car_jax.methods.base import Batch, Logs, Sampler, Samples, example_keys
from car_jax.methods.observed import Observed
from car_jax.methods.train_state import OneNet, Recomputing, TrainState, create
from car_jax.nn import net as nets
from car_jax.options import Count, Positive, Share, Weight
from car_jax.schedules import Plateau, ReducingRate
from car_jax.typing import Array

COSTS: dict[str, Callable[..., Array]] = {
  'iou': transport.iou_cost,
  'cross_entropy': transport.cross_entropy_cost,
  'balanced_cross_entropy': transport.balanced_cross_entropy_cost,
}
PLANS = {'greedy': transport.greedy_plan, 'exact': transport.exact_plan}


class Schedule(flax.struct.PyTreeNode):
  """Where the schedules stand, and the losses they have not heard of: [total, gate], summed."""

  rate: ReducingRate
  samples: Plateau
  row_limit: Plateau
  grouping: Plateau
  sums: Array
  count: Array


class State(flax.struct.PyTreeNode):
  step: Array
  net: TrainState
  schedule: Schedule


@dataclasses.dataclass(frozen=True)
class MoSE(Recomputing, Observed, OneNet):
  """`model` is an entry of the registry with MoSENet's methods. Pixels that all readers gave
  `ignore_label` are taken out of the cost, those that one gave it out of the cost of that one.

  samples are S, row_limits gamma and groupings G of the paper.
  """

  samples: tuple[Positive, ...] = (4,)
  """Samples of each expert in training, one number after the other."""
  sample_patience: Count = 30
  """Epochs without progress after which the next number of samples is taken."""
  cost: Literal['iou', 'cross_entropy', 'balanced_cross_entropy'] = 'iou'
  """What it costs to transport a sample to an annotation; balanced: every class of it weighs the
  same."""
  coupling: Literal['greedy', 'exact'] = 'greedy'
  """The transport plan: as published, or the optimum of the linear program."""
  gate_weight: Weight = 1.0
  """Weight of the divergence that teaches the gate."""
  row_limits: tuple[Weight, ...] = (0.5, 1.0)
  """How much of a sample may be used, in shares of an annotation's mass, one after the other."""
  row_patience: Count = 10
  """Epochs without progress after which the next limit is taken."""
  groupings: tuple[Share, ...] = (1.0,)
  """Experts whose samples overlap by more are one for the gate; 1 for none."""
  group_patience: Count = 30
  """Epochs without progress after which the next grouping is taken."""
  rate_patience: Count = 10
  """Epochs without progress after which the learning rate is reduced."""
  schedule_metric: Literal['epoch', 'running'] = 'epoch'
  """The loss that schedules listen to: each epoch's, or as released the mean since the start."""
  one_annotation: bool = False
  """Train on each image's first reader only."""

  def __post_init__(self):
    for key in ('samples', 'row_limits', 'groupings'):
      if not isinstance(getattr(self, key), (tuple, list)) or not getattr(self, key):
        raise UserError(f'method.{key} is {getattr(self, key)!r}; it is a list, such as (1,)')
    for key in ('schedule', 'milestones', 'decay_steps', 'warmup_steps'):
      if self.optim.get(key) and self.optim[key] != 'multistep':
        raise UserError(f'method.optim.{key}: the rate of MoSE follows the loss; leave it out')
    super().__post_init__()

  def init(self, seed: int, batch: Batch) -> State:
    net, image = self.net, self.blank(batch)
    noise = np.zeros((len(image), 1, net.experts, net.latent), np.float32)
    schedule = Schedule(
      rate=ReducingRate.start(self.optimizer.lr),
      samples=Plateau.start(),
      row_limit=Plateau.start(),
      grouping=Plateau.start(),
      sums=np.zeros(2, np.float32),
      count=np.int32(0),
    )
    trained = create(net, self.optimizer, seed, image, noise, train=False)
    return State(step=np.int32(0), net=trained, schedule=schedule)

  def phase(self, step: int, state: State) -> int:
    """How many samples of each expert the next step draws."""
    several = len(self.samples) > 1  # else the device need not be asked
    return self.samples[int(state.schedule.samples.index) if several else 0]

  def step(
    self, state: State, batch: Batch, rng: Array, phase: int | None = None
  ) -> tuple[State, Logs]:
    net, samples = self.net, phase or self.samples[0]
    noise = jax.random.normal(rng, (len(batch['image']), samples, net.experts, net.latent))
    return self.update(state, batch, noise)

  def update(self, state: State, batch: Batch, noise: Array) -> tuple[State, Logs]:
    """One step with given draws, noise [B, S, K, L]."""

    def loss_of(params):
      (logits, weight), new = self.net.apply(
        {'params': params, 'batch_stats': state.net.batch_stats},
        self.observed(batch),
        noise,
        train=True,
        mutable=['batch_stats'],
      )
      fit = self.loss(logits, weight, batch, state.schedule)
      return fit.loss, (fit, new['batch_stats'])

    grads, (fit, stats) = jax.grad(self.recomputed(loss_of), has_aux=True)(state.net.params)
    rate = state.schedule.rate.rate
    net = state.net.apply_gradients(self.optimizer, state.step, grads, stats, rate)
    schedule = self.advanced(state.schedule, state.step, fit)
    logs = {
      'loss/transport': fit.segmentation,
      'loss/gate': self.gate_weight * fit.gate,
    }
    logs |= {'schedule/rate': schedule.rate.rate}
    logs |= {'schedule/row_limit': schedules.value_of(schedule.row_limit, self.row_limits)}
    return State(state.step + 1, net, schedule), logs

  def readers(self, batch: Batch) -> tuple[Array, Array]:
    """Annotations [B, M, H, W] and their weights [B, M] that training looks at."""
    if self.one_annotation:
      return batch['labels'][:, :1], jnp.ones_like(batch['label_weight'][:, :1])
    return batch['labels'], batch['label_weight']

  def loss(
    self, logits: Array, probability: Array, batch: Batch, schedule: Schedule
  ) -> transport.Transport:
    """The loss of logits [B, N, H, W, C] of which sample n is drawn with probability [B, N]."""
    labels, weight = self.readers(batch)
    scores = jax.nn.softmax(logits) if self.cost == 'iou' else logits
    known = None
    if self.ignore_label is not None:
      silent = (labels == self.ignore_label) | (weight == 0)[..., None, None]
      void = jnp.all(silent, 1, keepdims=True)
      only = jax.nn.one_hot(self.ignore_label, self.num_classes)  # as published: there all agree
      scores = jnp.where(void[..., None], only, scores)
      known = (labels != self.ignore_label) | void
    cost = COSTS[self.cost](scores, labels, known)
    limit = schedules.value_of(schedule.row_limit, self.row_limits)
    fixed = jax.lax.stop_gradient(cost)
    plan = PLANS[self.coupling](fixed, weight, limit, weight > 0)
    fit = transport.transport(cost, plan, probability, self.gate_weight)
    if min(self.groupings) >= 1:
      return fit
    threshold = schedules.value_of(schedule.grouping, self.groupings)
    groups = transport.expert_groups(scores, self.net.experts, threshold)
    by_group = transport.transport(cost, plan, probability, self.gate_weight, groups)
    return jax.tree.map(lambda a, b: jnp.where(threshold < 1, a, b), by_group, fit)

  def advanced(self, old: Schedule, step: Array, fit: transport.Transport) -> Schedule:
    """The schedules after a step; they move at the end of an epoch."""
    sums = old.sums + jnp.stack([fit.loss, fit.gate])
    count = old.count + 1
    ends = (step + 1) % self.steps_per_epoch == 0
    total, gate = sums / count
    moved = Schedule(
      rate=schedules.reduce_on_plateau(old.rate, total, self.rate_patience),
      samples=schedules.next_on_plateau(
        old.samples, total, len(self.samples), self.sample_patience
      ),
      row_limit=schedules.next_on_plateau(
        old.row_limit, total, len(self.row_limits), self.row_patience
      ),
      grouping=schedules.next_on_plateau(
        old.grouping, gate, len(self.groupings), self.group_patience
      ),
      sums=jnp.zeros_like(sums) if self.schedule_metric == 'epoch' else sums,
      count=jnp.zeros_like(count) if self.schedule_metric == 'epoch' else count,
    )
    waiting = old.replace(sums=sums, count=count)
    return jax.tree.map(lambda a, b: jnp.where(ends, a, b), moved, waiting)

  def encoded(self, state: State, batch: Batch) -> tuple[Array, Array]:
    """Features [B, H, W, F] and the experts' probabilities [B, K]."""
    net, variables, x = self.net, state.net.variables, self.observed(batch)
    h, w = size = x.shape[1:3]
    seen = nets.mirrored(net, x)
    skips, features = net.apply(variables, seen, train=False, method='features')
    share = nets.shares(net, size, skips[-1].shape[1:3])
    return features[:, :h, :w], net.apply(variables, skips[-1], share, method='gate')

  def decoded(self, state: State, features: Array, z: Array) -> Array:
    """Features [B, H, W, F], latents [B, N, L] -> class probabilities [B, N, H, W, C]."""
    variables = state.net.variables
    return jax.nn.softmax(self.net.apply(variables, features, z, train=False, method='head'))

  def likeliest(self, state: State, batch: Batch) -> Array:
    """Class probabilities [B, H, W, C] of the most probable expert, at its mean."""
    features, gate = self.encoded(state, batch)
    z = state.net.params['means'][jnp.argmax(gate, 1)]
    return self.decoded(state, features, z[:, None])[:, 0]

  training_parts = ('schedule',)

  def predictors(self) -> dict[str, Any]:
    def samples(state: State, batch: Batch, rng: Array, n: int) -> Samples:
      features, gate = self.encoded(state, batch)
      net, variables = self.net, state.net.variables

      def draw(key, gate):
        which, noise = jax.random.split(key)
        expert = jax.random.categorical(which, jnp.log(gate), shape=(n,))
        return expert, jax.random.normal(noise, (n, net.latent))

      expert, noise = jax.vmap(draw)(example_keys(rng, batch), gate)
      z = net.apply(variables, expert, noise, method='drawn')
      return Samples(self.decoded(state, features, z), baselines.uniform(gate.shape[0], n))

    def weighted(state: State, batch: Batch, rng: Array, n: int) -> Samples:
      features, gate = self.encoded(state, batch)
      net, variables = self.net, state.net.variables
      each = max(1, n // net.experts)  # draws of every expert, the rest of n counts nothing
      slot = np.arange(n)
      order = jnp.argsort(-gate, axis=1)
      expert = order[:, slot % net.experts]
      weight = jnp.where(slot < each * net.experts, jnp.take_along_axis(gate, expert, 1), 0)
      draw = lambda key: jax.random.normal(key, (n, net.latent))
      z = net.apply(variables, expert, jax.vmap(draw)(example_keys(rng, batch)), method='drawn')
      return Samples(self.decoded(state, features, z), weight / weight.sum(1, keepdims=True))

    return {
      'samples': samples,
      'weighted experts': Sampler(weighted, whole=True, together=self.net.experts),
      'likeliest expert': baselines.argmax_of(self.likeliest),
    }
