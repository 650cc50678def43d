"""The protocol between a method and everything that drives it (loop, evaluation, importers).

A batch is a dict of arrays on the devices, where it came as bytes (data/compact.py). Letters: B
examples, M readers, H x W pixels, C classes, N samples.
  image        [B, H, W, 3] float32 in [-1, 1]
  label        [B, H, W]    int32, one reader drawn at random; in evaluation only where the data set
               has an ignored class: that class where all readers gave it, else -1
  labels       [B, M, H, W] int32, every reader, padded to the largest M
  label_weight [B, M]       float32, 1 / number of readers, 0 for padding
  valid        [B]          bool, False for the rows that pad the last evaluation batch
  unknown      [B, H, W]    bool, objects of no known class, where a data set has them (ignored)
  black_box    [B, H, W]    int32, another model's prediction, where the data set has one
  example      [B]          uint32, crc32 of the example's id: seeds its evaluation draws
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.struct
import jax

from car_jax.options import Precision
from car_jax.typing import Array

Batch = Mapping[str, Array]
Logs = dict[str, Array]


class Samples(flax.struct.PyTreeNode):
  """What a segmenter says about each image: N segmentations and how much it believes each.

  probs [B, N, H, W, C] float32, weight [B, N] float32 summing to one over N;
  marginal [B, H, W, C], where the method has class probabilities of its own (else None).
  """

  probs: Array
  weight: Array
  marginal: Array | None = None


@dataclasses.dataclass(frozen=True)
class Sampler:
  """One of a method's predictors, called as draw(state, batch, rng, n) -> Samples.

  Draws must depend on `rng` and `batch['example']` alone, never on the batch's size or the
  example's place in it. whole: the samples with their weights are all that there is, not draws.
  together: how many samples a part has at least, where not all are drawn at once; with fewer, not
  everything that they come from has its share. coherent: False where each pixel is drawn by itself.
  """

  draw: Callable[[Any, Batch, Array, int], Samples]
  whole: bool = False
  together: int = 1
  coherent: bool = True

  def __call__(self, state: Any, batch: Batch, rng: Array, n: int) -> Samples:
    return self.draw(state, batch, rng, n)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Computed:
  """How products of float32 are computed in all that a method computes: of whatever class is made
  of this, `step`, `logits`, `features`, `drawn` and the predictors trace under `precision`."""

  precision: Precision = None
  """Of products of float32: high or highest; None for jax's default, which is bfloat16's on a TPU
  and TF32's on a GPU, and float32's on a CPU."""

  def __init_subclass__(cls, **kw: Any) -> None:
    super().__init_subclass__(**kw)
    for name in ('step', 'logits', 'features', 'drawn'):
      if name in vars(cls):
        setattr(cls, name, _precise(vars(cls)[name]))
    if 'predictors' in vars(cls):
      cls.predictors = _precise_predictors(vars(cls)['predictors'])  # type: ignore[attr-defined]


def _precise(function: Callable) -> Callable:
  @functools.wraps(function)
  def computed(self: Computed, *args: Any, **kw: Any) -> Any:
    if self.precision is None:
      return function(self, *args, **kw)
    with jax.default_matmul_precision(self.precision):
      return function(self, *args, **kw)

  return computed


def _precise_predictors(predictors: Callable) -> Callable:
  """A function of which nothing else is to be said is a Sampler too."""

  @functools.wraps(predictors)
  def computed(self: Computed) -> dict[str, Sampler]:
    bound = lambda draw: functools.partial(_precise(lambda _, *args: draw(*args)), self)
    sampler = lambda f: f if isinstance(f, Sampler) else Sampler(f)
    samplers = {name: sampler(f) for name, f in predictors(self).items()}
    return {name: dataclasses.replace(s, draw=bound(s.draw)) for name, s in samplers.items()}

  return computed


def ignored_class(ignore: int | None, num_classes: int) -> int | None:
  """The ignored label where it is one of the classes, which predictions might have."""
  return ignore if ignore is not None and ignore < num_classes else None


class Method(Computed):
  """One file per method: a frozen dataclass made of this, whose fields are the config's options.

  `step` and `predict` are pure and are jitted by their callers. A field num_classes,
  steps_per_epoch or ignore_label is filled in from the data.
  """

  num_classes: int
  ignore_label: int | None = None
  """Filled in from the data, where the method has the field."""
  has_logits: bool = False
  """Whether there are `logits`, for calibration and detection after training."""
  prediction_options: ClassVar[tuple[str, ...]] = ()
  """Options of prediction, of which a checkpoint may be asked with other values."""
  step_options: ClassVar[tuple[str, ...]] = ()
  """Options that count steps, which `base_batch` lets follow the batch."""
  training_parts: tuple[str, ...] = ()
  """Fields of the state that no prediction depends on: models are handed on without them."""

  @property
  def ignored_class(self) -> int | None:
    """See the function of this name."""
    return ignored_class(self.ignore_label, self.num_classes)

  @property
  def given_parts(self) -> tuple[str, ...]:
    """Fields of the state that no step changes: nets of other runs, which config.init names."""
    return ()

  @property
  def reads_black_box(self) -> bool:
    """Whether predictions depend on `black_box`, where the data set has it."""
    return False

  @property
  def has_features(self) -> bool:
    """Whether there are `features`."""
    return False

  @property
  def has_windows(self) -> bool:
    """Whether it predicts by sliding windows of its own."""
    return False

  def without_windows(self) -> 'Method':
    """The same without windows of its own."""
    return self

  def init(self, seed: int, batch: Batch) -> Any:
    """Everything that training changes, as a pytree with an int32 scalar `.step`."""
    raise NotImplementedError

  def phase(self, step: int, state: Any) -> Any:
    """What kind of step follows `step`, where there are several: a hashable value that `step` takes
    as `phase=`. The loop compiles one version of the step for each."""
    return None

  def step(self, state: Any, batch: Batch, rng: Array) -> tuple[Any, Logs]:
    """One update; `rng` is already folded with the step. Logs are scalars by name."""
    raise NotImplementedError

  def predictors(self) -> Mapping[str, Any]:
    """By name, Samplers or functions draw(state, batch, rng, n) -> Samples: whoever asks gets
    Samplers. The first is the method's own, the others are the baselines that come free with it.
    """
    raise NotImplementedError

  @property
  def own_predictor(self) -> Sampler:
    """The first of `predictors`."""
    return next(iter(self.predictors().values()))

  def logits(self, state: Any, batch: Batch) -> Array:
    """[B, H, W, C] float32 at the size of batch['labels'], where the method has logits."""
    raise NotImplementedError

  def features(self, state: Any, batch: Batch) -> Array:
    """[B, D], one vector per image, where the method has features."""
    raise NotImplementedError


def example_keys(rng: Array, batch: Batch) -> Array:
  """One key per example, the same however the examples are batched: [B] keys."""
  return jax.vmap(lambda e: jax.random.fold_in(rng, e))(batch['example'])
