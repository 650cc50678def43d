"""Flow matching of label maps given the image (Lipman et al., ICLR 2023), as MedFM has it.

Maps are numbers, 1 in the channel of their class and -1 in the others. A net learns the velocity
along the straight way from normal noise x_0 to such a map x_1; samples follow it from time 0 to 1.
With `start`, as ATFM has it, x_0 is the class probabilities of a segmentation that a trained method
has drawn, such as SSN, and maps are 1 and 0.
Letters as in methods/base.py; K channels of x.

As released: time enters the net from 0 to 1 (`time_scale`), so that most of its sinusoid hardly
moves. There the image is dropped for a whole batch at a time, here for each image on its own.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from car_jax import registry
from car_jax.errors import UserError
from car_jax.methods.base import Batch, Logs
from car_jax.methods.denoised import Denoised
from car_jax.methods.sampled import Sampled
from car_jax.methods.train_state import Frozen, State, TrainState
from car_jax.nn import net as nets
from car_jax.nn.layers import check_two_classes
from car_jax.options import Factor, Part, Positive, Share, Weight
from car_jax.typing import Array

FOREGROUND = 1 / 255  # the least number of the second class: MedFM rounds maps down to bytes first


class Noise(NamedTuple):
  """Of a training step: x_0 [B, H, W, K] or the noise [B, ..] that makes it, time [B], and which
  images the net sees [B]."""

  start: Any
  time: Array
  seen: Array


class Started(State):
  """With the net of the method that flows start from."""

  start: Frozen


@dataclasses.dataclass(frozen=True)
class FlowMatching(Denoised):
  """The net's output is the velocity of x."""

  solver: Literal['midpoint', 'euler'] = 'midpoint'
  """How samples go along the velocity; midpoint asks the net twice a step."""
  sampling_steps: Positive = 100
  """Steps from time 0 to 1, all of one length."""
  image_dropout: Share = 0.0
  """Share of images that training replaces by zeros, for `guidance`."""
  guidance: Weight = 0.0
  """How much of the velocity with the image less that without is added once more."""
  time_scale: Factor = 1.0
  """What time is multiplied by before the net sees it."""
  skewed_times: bool = False
  """Training draws more of late times: 1 / (1 + exp(1.2 n - 1.2)), n normal."""
  one_channel: bool = False
  """A single channel for the second of two classes, as released."""
  start: Annotated[Mapping[str, Any], Part('method')] | None = None
  """What draws x_0: the `method` of another run, whose net comes by config.init.start and stays as
  it is, so that options of its training do nothing; without, noise."""
  all_readers: bool = False
  """Every step learns from the maps of all readers, at the same x_0 and time."""

  prediction_options = ('solver', 'sampling_steps', 'guidance')

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.one_channel:
      check_two_classes('method.one_channel', self.num_classes)
    if self.guidance and not self.image_dropout:
      raise UserError(
        f'method.guidance is {self.guidance:g}, but the net never learns to do without the image\n'
        '  give method.image_dropout, such as 0.2, or method.guidance=0'
      )
    one_pass = lambda m: isinstance(m, Sampled) and not isinstance(m, Denoised)
    if self.start is not None and not one_pass(self.starter):
      raise UserError(
        f'method.start.name is {self.start["name"]!r}, which draws no segmentation in one pass\n'
        '  give ssn, prob_unet or phiseg'
      )

  @property
  def given_parts(self) -> tuple[str, ...]:
    return () if self.start is None else ('start',)

  @property
  def reads_black_box(self) -> bool:
    return super().reads_black_box or (self.start is not None and self.starter.reads_black_box)

  @property
  def starter(self) -> Any:
    """The method that draws x_0."""
    context = dict(num_classes=self.num_classes, ignore_label=self.ignore_label)
    return registry.method(self.start or {}, steps_per_epoch=self.steps_per_epoch, **context)

  @property
  def lowest(self) -> float:
    """What x_1 is in the channels of other classes."""
    return -1.0 if self.start is None else 0.0

  @property
  def net(self) -> Any:
    return registry.net(self.model, num_classes=1 if self.one_channel else self.num_classes)

  def init(self, seed: int, batch: Batch) -> State:
    state = super().init(seed, batch)
    if self.start is None:
      return state
    net = self.starter.init(seed, batch).net
    return Started(state.step, state.net, Frozen(net.params, net.batch_stats))

  def noise(self, key: Array, n: int, height: Any, width: Any) -> Any:
    """x_0 of n segmentations of one image, at the size that the net takes; or the noise that
    `start` draws them from."""
    if self.start is not None:
      return self.starter.noise(key, n, height, width)
    net = self.net
    return jax.random.normal(key, (n, *nets.taken(net, (height, width)), net.num_classes))

  def training_noise(self, key: Array, batch: Batch) -> Noise:
    for_start, for_time, for_image = jax.random.split(key, 3)
    b, *size = batch['image'].shape[:3]
    if self.skewed_times:
      time = jnp.clip(jax.nn.sigmoid(1.2 - 1.2 * jax.random.normal(for_time, (b,))), 1e-4, 1.0)
    else:
      time = jax.random.uniform(for_time, (b,))
    seen = jax.random.bernoulli(for_image, 1 - self.image_dropout, (b,))
    return Noise(self.noise(for_start, b, *size), time, seen)

  def started(self, state: State, batch: Batch, noise: Any) -> Array:
    """Noise [B, N, ..] of each image -> x_0 [B, N, h, w, K] at the size that the net takes."""
    if not isinstance(state, Started):
      return noise
    net = TrainState(state.start.params, state.start.batch_stats, ())
    probs = self.starter.drawn(State(state.step, net), batch, noise)
    x = probs[..., 1:] if self.one_channel else probs
    flat = nets.mirrored(self.net, x.reshape(-1, *x.shape[2:]))
    return jax.lax.stop_gradient(flat.reshape(*x.shape[:2], *flat.shape[1:]))

  def update(self, state: State, batch: Batch, noise: Noise, **kw: Any) -> tuple[State, Logs]:
    one = jax.tree.map(lambda a: a[:, None], noise.start)
    start = self.started(state, batch, one)[:, 0]
    return super().update(state, batch, noise._replace(start=start), **kw)

  def end(self, label: Array, known: Array, like: Array) -> Array:
    """Maps [.., H, W] -> x_1 [.., H, W, K]; the middle where nothing is learnt, which tells the net
    of no class."""
    if self.one_channel:
      ones = label[..., None].astype(like.dtype)
    else:
      ones = jax.nn.one_hot(label, self.num_classes, dtype=like.dtype)
    return jnp.where(known[..., None], ones - self.lowest * (ones - 1), (1 + self.lowest) / 2)

  def loss(
    self, variables: Any, batch: Batch, noise: Noise, rngs: Any = None
  ) -> tuple[Logs, Logs, Any]:
    """Mean squared error of the velocity, Eq. 23 of Lipman et al. without their sigma_min."""
    given = batch['labels'] if self.all_readers else batch['label'][:, None]  # [B, M, H, W]
    weight = batch['label_weight'] if self.all_readers else jnp.ones(given.shape[:2])
    label, image = self.known(given), self.observed(batch)
    end = self.end(jnp.maximum(label, 0), label >= 0, image)
    wide = lambda a: a[:, None, None, None]
    start, time = noise.start[:, None], wide(noise.time)[:, None]
    x = time * end + (1 - time) * start
    image = jnp.where(wide(noise.seen), image, 0)
    each = lambda a: jnp.repeat(a, given.shape[1], 0)
    x = x.reshape(-1, *x.shape[2:])
    velocity = self.trained(variables, x, each(image), each(self.time_scale * noise.time), rngs)
    error = jnp.square(velocity.reshape(end.shape) - (end - start)).mean(-1)
    counts = (label >= 0) * weight[:, :, None, None]
    total = jnp.sum(counts)
    mean = jnp.sum(error * counts) / jnp.where(total > 0, total, 1)
    return {'loss/velocity': mean}, {}, {}

  def flowed(self, state: State, batch: Batch, start: Array) -> Array:
    """x_0 [B, N, h, w, K] at the size that the net takes -> x at time 1."""
    image = nets.mirrored(self.net, self.observed(batch))
    n, length = start.shape[1], 1 / self.sampling_steps
    with_image = self.predicting(state, image, n)
    without = self.predicting(state, jnp.zeros_like(image), n)

    def velocity(x: Array, time: Array) -> Array:
      time = self.time_scale * time
      v = with_image(x, time)
      return v if not self.guidance else v + self.guidance * (v - without(x, time))

    def step(k: Array, x: Array) -> Array:
      time = k * length
      v = velocity(x, time)
      if self.solver == 'midpoint':
        v = velocity(x + length / 2 * v, time + length / 2)
      return x + length * v

    return jax.lax.fori_loop(0, self.sampling_steps, step, start)

  def drawn(self, state: State, batch: Batch, noise: Array) -> Array:
    height, width = batch['image'].shape[1:3]
    x = self.flowed(state, batch, self.started(state, batch, noise))[:, :, :height, :width]
    least = FOREGROUND if self.start is None else 0.5
    labels = (x[..., 0] >= least).astype(int) if self.one_channel else jnp.argmax(x, -1)
    return jax.nn.one_hot(labels, self.num_classes)
