"""Self-supervised augmentation consistency: DA-SAC's second stage (arXiv 2105.00097, CVPR 2021).

A teacher, a running average of the student, looks at several views of each unlabelled target image.
Its predictions are averaged in the image's frame, sent back to the views and thresholded there; the
student, which sees noisy copies, learns the labels that are left, and the source's. Letters as in
methods/base.py; B views, T views of each target image (B = N T), C classes.

The batch holds besides image and label, for an image's views in a row:
  target       [B, H, W, 3] what the teacher sees
  student      [B, H, W, 3] the same views with photometric noise
  affine       [B, 2, 3]    from the coordinates of the image's frame to the view's
  affine_inv   [B, 2, 3]    back
  target_label [B, H, W]    -1 beyond the image's border; the classes are for a logged loss only
  views        [B]          T
"""

import collections
import dataclasses
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.errors import UserError
from car_jax.losses import consistency
from car_jax.methods import baselines, train_state
from car_jax.methods.abn import ABN, check_domains
from car_jax.methods.base import Batch, Logs
from car_jax.methods.train_state import Frozen, TrainState, create, full_size
from car_jax.nn import warp
from car_jax.nn.resize import resize_bilinear
from car_jax.options import Count, Positive, Range, Share, Weight
from car_jax.typing import Array


class State(train_state.State):
  """`prior` [C] is the running share of each class; `initialised` once the teacher is a copy."""

  teacher: Frozen
  prior: Array
  initialised: Array


@dataclasses.dataclass(frozen=True)
class SAC(ABN):
  """`views` is T. The defaults are those of the ResNet trained on GTA5.

  Batch norm's statistics stay as they come from the first stage (config.init.net), scale and offset
  learn on. The teacher moves in the first of every `teacher_period` steps of an epoch.
  """

  views: Positive = 4
  """Views of each target image; as many as data.target.views."""
  target_weight: Weight = 5.0
  """Weight of the loss on pseudo labels, beside the source's."""
  teacher_momentum: Share = 0.99
  """How much of the teacher stays when it moves."""
  teacher_period: Positive = 100
  """Steps of an epoch between two moves of the teacher."""
  upper: Share = 0.75
  """Confidence that a label of a frequent class needs, as a share of the largest of its class."""
  lower: Share = 0.2
  """The least confidence that any label needs."""
  discount: bool = True
  """Rare classes need less confidence."""
  prior_scale: Annotated[float, Range(1e-12, 1.0)] = 1e-3
  """Share of pixels from which on a class counts as frequent."""
  prior_momentum: Share = 0.99
  """How much of the running class prior stays in a step."""
  focal_power: Weight = 3.0
  """The loss of class c has the weight (1 - its prior) to this power."""
  pool: Literal['mean', 'surest', 'none'] = 'mean'
  """How views are combined."""
  weighting: Literal['own', 'batch_mean', 'none'] = 'own'
  """Whose confidence weights a pixel's loss: own as in the paper, batch_mean as published."""
  averaged_views: Count = 0
  """With batch_mean: over how many views in a row, 0 for all."""

  training_parts = ('prior', 'initialised')

  def init(self, seed: int, batch: Batch) -> State:
    check_domains(batch, 'sac', ('student', 'affine', 'affine_inv', 'target_label'))
    self.check_views(batch)
    net = create(self.net, self.optimizer, seed, batch['image'], train=False)
    return State(
      step=np.int32(0),
      net=net,
      teacher=Frozen(net.params, net.batch_stats),
      prior=np.full(self.num_classes, self.prior_scale, np.float32),
      initialised=np.bool_(False),
    )

  def check_views(self, batch: Batch) -> None:
    if 'target' not in batch:
      return
    made = int(np.max(batch.get('views', self.views)))
    count = len(batch['target']) * jax.process_count()  # init sees one process's share
    if made != self.views:
      raise UserError(
        f'config.method.views is {self.views}, the data have {made} views of each image\n'
        f'  use --config.method.views={made}'
      )
    if self.averaged_views and count % self.averaged_views:
      raise UserError(
        f'config.method.averaged_views is {self.averaged_views}, no divisor of the {count} views '
        f'of a batch\n  use --config.method.averaged_views={self.views}'
      )

  def step(self, state: Any, batch: Batch, rng: Array) -> tuple[State, Logs]:
    state = self.with_moved_teacher(state)
    labels, confidence, prior, notes = self.labelled(state, batch)
    grads, logs = self.gradients(state.net, batch, labels, confidence, prior, rng)
    logs |= notes | {'teacher/distance': distance(state.teacher, state.net)}
    net = state.net.apply_gradients(self.optimizer, state.step, grads, state.net.batch_stats)
    return state.replace(step=state.step + 1, net=net, prior=prior), logs

  def labelled(self, state: State, batch: Batch) -> tuple[Array, Array, Array, Logs]:
    """The teacher's labels [B, H, W], -1 for none, confidence [B, H, W], the new prior, logs."""
    padded = batch['target_label'] < 0
    logits, _ = self.net.apply(state.teacher.variables, batch['target'], train=False)
    probs, prior = self.refined(logits, state.prior, padded, batch['affine'], batch['affine_inv'])
    least = self.thresholds(probs, prior)
    labels, confidence = consistency.pseudo_labels(probs, padded, least)
    return labels, confidence, prior, label_logs(probs, labels, least)

  def with_moved_teacher(self, state: State) -> State:
    """The teacher moved towards the student, if this step is one that moves it; a copy at first."""
    due = state.step % self.steps_per_epoch % self.teacher_period == 0
    first = due & ~state.initialised
    share = jnp.where(first, 1.0, jnp.where(due, 1 - self.teacher_momentum, 0.0))
    start = jnp.asarray(self.prior_scale, state.prior.dtype)
    return state.replace(
      teacher=moved(state.teacher, state.net, share),
      prior=jnp.where(first, start, state.prior),
      initialised=state.initialised | due,
    )

  def refined(
    self, logits: Array, prior: Array, padded: Array, affine: Array, affine_inv: Array
  ) -> tuple[Array, Array]:
    """Low-resolution logits [B, h, w, C], padded [B, H, W] -> probs [B, H, W, C], new prior [C].

    The prior sees the views as they are, border and all. Refined probabilities may sum to less than
    one: near the border, and where no view looked.
    """
    probs = jax.nn.softmax(resize_bilinear(logits, padded.shape[1:], align_corners=True))
    prior = consistency.updated_prior(
      prior, probs, start=self.prior_scale, momentum=self.prior_momentum
    )
    probs = jnp.where(padded[..., None], 0, probs)
    if self.pool == 'none':
      return probs, prior
    pool = consistency.POOLS[self.pool]
    pooled, seen = pool(aligned(probs, affine, affine_inv), self.views)
    both = jnp.concatenate([pooled, seen.astype(pooled.dtype)], -1)
    back = warp.zoomed(both, affine_inv)
    return back[..., :-1] * back[..., -1:], prior

  def thresholds(self, probs: Array, prior: Array) -> Array:
    return consistency.thresholds(
      probs,
      prior,
      upper=self.upper,
      lower=self.lower,
      scale=self.prior_scale,
      discount=self.discount,
    )

  def weighted(self, losses: Array, confidence: Array) -> Array:
    """[B, H, W] each: the losses weighted by confidence."""
    if self.weighting == 'batch_mean':
      confidence = consistency.averaged_confidence(confidence, self.averaged_views)
    return losses if self.weighting == 'none' else losses * confidence

  def gradients(
    self, net: TrainState, batch: Batch, labels: Array, confidence: Array, prior: Array, rng: Array
  ) -> tuple[Any, Logs]:
    """Of the source's loss plus `target_weight` times the target's, one after the other."""

    def apply(params: Any, image: Array, rng: Array) -> Array:
      variables = {'params': params, 'batch_stats': net.batch_stats}
      out = self.net.apply(variables, image, train=True, norm_train=False, rngs={'dropout': rng})
      return full_size(out)

    def source_loss(params: Any) -> Array:
      return self.loss(apply(params, batch['image'], rng), batch)

    def target_loss(params: Any) -> tuple[Array, tuple[Array, Array]]:
      logits = apply(params, batch['student'], jax.random.fold_in(rng, 1))
      losses = consistency.focal_losses(logits, labels, prior, power=self.focal_power)
      loss = jnp.mean(self.weighted(losses, confidence))
      return self.target_weight * loss, (loss, jax.lax.stop_gradient(logits))

    source, one = jax.value_and_grad(self.recomputed(source_loss))(net.params)
    differentiated = jax.value_and_grad(self.recomputed(target_loss), has_aux=True)
    (_, (target, logits)), two = differentiated(net.params)
    truth = consistency.pixel_losses(logits, self.known(batch['target_label']))
    kept = labels >= 0
    agreed = jnp.sum(kept & (jnp.argmax(logits, -1) == labels)) / jnp.maximum(jnp.sum(kept), 1)
    logs = {
      'loss/source': source,
      'loss/target': target,
      'target/cross_entropy': jnp.mean(truth),
      'teacher/agreement': agreed,
    }
    return jax.tree.map(jnp.add, one, two), logs

  def predictors(self) -> dict[str, Any]:
    by_teacher = lambda state, batch: self.probabilities(state.replace(net=state.teacher), batch)
    return {
      'student argmax': baselines.argmax_of(self.probabilities),
      'teacher argmax': baselines.argmax_of(by_teacher),
    }


def aligned(probs: Array, affine: Array, affine_inv: Array) -> Array:
  """Views' probabilities [B, H, W, C] in their image's frame, each weighted by what it sees there.

  What it sees is taken by the inverse matrix, as published, hence in the view's own frame. The
  two are the same for views that do not look beyond their image.
  """
  seen = warp.zoomed(jnp.ones_like(probs[..., :1]), affine_inv)
  return warp.zoomed(probs, affine) * seen


def moved(teacher: Frozen, net: TrainState, share: Array) -> Frozen:
  """The teacher, that share of the way to the student; counters stay as they were copied.

  Written as a step, not as a mean of the two: float32 loses less of a small one. A share of one
  copies exactly.
  """

  def mixed(a: Array, b: Array) -> Array:
    step = share * (b - a) if jnp.issubdtype(a.dtype, jnp.floating) else jnp.zeros_like(a)
    return jnp.where(share == 1, b, a + step)

  return Frozen(**jax.tree.map(mixed, teacher.variables, net.variables))


def distance(teacher: Frozen, net: TrainState) -> Array:
  """The L2 norms of the difference of each array, added up.

  Vectors of the same length are taken together: a ResNet has hundreds, and each reduction costs
  time to compile. Larger arrays are not copied for that.
  """
  pairs = zip(jax.tree.leaves(teacher.variables), jax.tree.leaves(net.variables), strict=True)
  floats = [(a, b) for a, b in pairs if jnp.issubdtype(a.dtype, jnp.floating)]
  groups = collections.defaultdict(list)
  for number, (a, b) in enumerate(floats):
    groups[a.shape if a.ndim == 1 else number].append(a - b)
  norms = lambda rows: jnp.sqrt(jnp.sum(jnp.square(rows), range(1, rows.ndim)))
  return sum((jnp.sum(norms(jnp.stack(group))) for group in groups.values()), jnp.float32(0))


def label_logs(probs: Array, labels: Array, least: Array) -> Logs:
  """What share of the pixels has a pseudo label, of each class too, and the classes' thresholds."""
  classes = jnp.arange(probs.shape[-1])
  best = jnp.sum(jnp.argmax(probs, -1)[..., None] == classes, (0, 1, 2))
  kept = jnp.sum(labels[..., None] == classes, (0, 1, 2)) / jnp.maximum(best, 1)
  mean = jnp.mean(least, 0)
  logs = {'kept': jnp.mean(labels >= 0)}
  logs |= {f'kept/{c}': kept[c] for c in range(len(classes))}
  return logs | {f'threshold/{c}': mean[c] for c in range(len(classes))}
