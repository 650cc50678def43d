"""A trained model that predicts pictures of one's own: masks, samples and how sure it is.

  model = car_jax.load('runs/mose')
  out = model.predict(image, samples=8)  # .mask .samples .weights .probabilities .entropy ..

Letters: B images, N samples, H x W pixels, C classes.
"""

import dataclasses
import functools
import math
import pathlib
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from car_jax import hub, sharding
from car_jax.calibrate import base as calibrators
from car_jax.calibrate import files as calibrator_files
from car_jax.data import options as data_options
from car_jax.data import transforms
from car_jax.errors import UserError
from car_jax.evaluate import checkpointed, engine
from car_jax.evaluate import predict as predictions
from car_jax.evaluate.predict import Prediction
from car_jax.methods.base import Batch, Method, Sampler
from car_jax.metrics.scores import entropy
from car_jax.nn.windows import Sides, sides
from car_jax.predict import reading, values
from car_jax.predict.windowed import windowed
from car_jax.typing import Array

MOST_WHOLE = 1 << 21  # pixels of an image that is predicted whole: those of 2048 x 1024
UNKNOWN = (1024, 1024)  # windows of a model that does not tell what it was trained on
CHUNK, NUMBERS = 16, 1 << 26  # samples at a time, and class probabilities of an image


class Outputs(flax.struct.PyTreeNode):
  """What a model says of images; a single image of `Predictor.predict` has no axis B.

  mask [B, H, W]: the likeliest class by `probabilities`, the lowest of equal ones, uint8 (int32
  from 257 classes on). samples [B, N, H, W]: the class of every pixel in each segmentation that was
  drawn, and weights [B, N], which sum to one. probabilities [B, H, W, C]: the mean of the samples'
  or, of a method with logits, their softmax; through the calibrator if there is one. entropy
  [B, H, W]: theirs in nats. mutual_information [B, H, W]: how much the samples differ, in nats: the
  entropy of their mean minus their mean entropy, before any calibration.
  """

  mask: Any
  samples: Any
  weights: Any
  probabilities: Any
  entropy: Any
  mutual_information: Any


def outputs(
  method: Method,
  predict: Sampler,
  state: Any,
  batch: Batch,
  key: Array,
  samples: int,
  calibrator: Any = None,
  chunk: int = CHUNK,
) -> Outputs:
  """What `predict`, one of the method's predictors, says of images without labels. Pure.

  batch: image [B, h, w, 3] in [-1, 1] and example [B]; labels [B, 1, H, W] where the size of the
  prediction is another than the image's, whose values mean nothing. No one says an ignored class.
  chunk: as in evaluate/predict.py.
  """
  image = jnp.asarray(batch['image'])
  labels = jnp.full_like(batch.get('labels', image[:, None, ..., 0]), -1, jnp.int32)
  batch = {**batch, 'labels': labels, 'label_weight': jnp.ones(labels.shape[:2])}
  ignore = method.ignored_class
  drawn = predictions.predict(predict, samples, chunk, ignore, state, batch, key, compare=True)
  probs = drawn.mean
  if method.has_logits or calibrator is not None:
    logits = _logits(method, state, batch, drawn, calibrator)
    if ignore is not None:
      logits = jnp.where(jnp.arange(method.num_classes) == ignore, -jnp.inf, logits)
    probs = jax.nn.softmax(logits)
  return Outputs(
    mask=jnp.argmax(probs, -1).astype(drawn.labels.dtype),
    samples=drawn.labels,
    weights=drawn.weight,
    probabilities=probs,
    entropy=entropy(probs),
    mutual_information=drawn.disagreement,
  )


def _logits(method: Method, state: Any, batch: Batch, drawn: Prediction, calibrator: Any) -> Array:
  """The method's [B, H, W, C], or logarithms of its samples' mean; through the calibrator."""
  stated = Prediction(logits=method.logits(state, batch)) if method.has_logits else drawn
  if calibrator is None:
    return stated.logits
  if calibrators.needs(calibrator) == 'features':
    batch = {**batch, 'features': method.features(state, batch)}
  return engine.calibrated(calibrator, stated, batch).logits


@dataclasses.dataclass(frozen=True)
class Windows:
  """How images are looked at: crop and stride as in methods/inference.py; None: see `of`.

  Raises UserError for windows that leave gaps.
  """

  crop: Sides | None = None
  stride: Sides | None = None

  def __post_init__(self) -> None:
    if self.stride is None:
      return
    if self.crop is None:
      raise UserError(f'stride is {self.stride} without a crop\n  give the side of windows, too')
    for c, s in zip(sides(self.crop), sides(self.stride), strict=True):
      if not (0 < s <= c or s == c == 0):
        mend = f'windows of {c} are 1 to {c} apart; without a stride, {third(c)}'
        raise UserError(
          f'crop is {self.crop} and stride {self.stride}\n'
          f'  {mend if c else "whole images have no stride: leave it out"}'
        )

  def of(self, shape: tuple[int, int], model: 'Predictor') -> 'Windows':
    """For images that the net sees in a shape: what was chosen, else windows of the method's own,
    which are Windows(), else the whole image up to MOST_WHOLE pixels, and beyond windows of the
    size that the model was trained on.

    Without a stride, windows are two thirds of their size apart.
    """
    crop = self.crop
    if crop is None:
      if model.method.has_windows:
        return self
      crop = 0 if math.prod(shape) <= MOST_WHOLE else model.size or UNKNOWN
    if self.stride is not None:
      return self
    height, width = sides(crop)
    return Windows(crop, (third(height), third(width))) if crop else Windows(0, 0)


def third(side: int) -> int:
  """How far apart windows are, without a stride."""
  return max(1, side * 2 // 3)


WHOLE_OR_WINDOWS = Windows()


class Predictor:
  """A trained model; `load` makes one. Its printed form says what it is.

  method, state, config and info (of its data) are those of its run; size: of the images that it was
  trained on. Raises UserError for one that cannot predict an image alone.
  """

  def __init__(self, loaded: checkpointed.Loaded, calibrator: Any = None):
    self.method, self.state, self.config = loaded.method, loaded.state, loaded.config
    self.info, self.step, self.path = loaded.info, loaded.step, loaded.path
    self.size, self.crc, self.calibrator = loaded.size, loaded.crc, calibrator
    self._runs = loaded.runs
    if any(run.info.black_box and run.method.reads_black_box for run in loaded.runs):
      raise UserError(
        f"{self.path} predicts from another model's prediction beside the image\n"
        '  score it on its own data: car-jax eval --checkpoint RUN'
      )
    if calibrators.needs(calibrator) == 'features' and not self.method.has_features:
      raise UserError(f'the calibrator needs features of images, which {self.path} does not give')
    _check_alike(loaded)
    data = dataclasses.replace(data_options.of(self.config.data), eval_size=0)
    self._sizing = transforms.from_config(data, train=False)
    self._mesh = sharding.make_mesh()
    self._compiled = functools.lru_cache(maxsize=None)(self._compile)

  def __repr__(self) -> str:
    info, predictor = self.info, next(iter(self.method.predictors()))
    methods = ' and '.join(dict.fromkeys(_described(run.config) for run in self._runs))
    steps = ' and '.join(dict.fromkeys(f'{run.step:,} steps ({run.which})' for run in self._runs))
    answers = '' if predictor == self.config.method.name else f', {predictor}'
    calibrated = '' if self.calibrator is None else ', calibrated'
    return (
      f'{methods}{answers}{calibrated}, of {hub.shown(self.path)}\n'
      f'trained on {info.name or "data without a name"}, {steps}\n'
      f'predicts {info.num_classes} classes: {", ".join(self.classes)}'
    )

  @property
  def classes(self) -> tuple[str, ...]:
    """Their names in the order of their ids; their numbers where its data has no names."""
    return tuple(self.info.class_names or map(str, range(self.info.num_classes)))

  @property
  def single(self) -> bool:
    """Whether it has one answer, so that all segmentations of an image are alike."""
    return self.method.has_logits

  def draws(self, samples: int) -> int:
    """How many segmentations of an image are worth asking for: one where all are alike."""
    return 1 if self.single else samples

  def predict(
    self,
    image: Any,
    samples: int = 8,
    *,
    seed: int = 0,
    range: str | tuple[float, float] = '',
    names: Sequence[str] | None = None,
    crop: Sides | None = None,
    stride: Sides | None = None,
  ) -> Any:
    """An image, a batch, a path or a list of these -> numpy Outputs; a list of them for a list.

    image: an array [H, W], [H, W, 3] or a batch [B, H, W, 3], see predict/values.py on types; or
    the path of a picture, an .npy array, a NIfTI or DICOM file, or of the folder of a DICOM series.
    range: (LOW, HIGH), the values that are black and white, where uint8 does not say it; a text as
    of car-jax predict --range.
    names: of the images, which draws are keyed by with the seed; without, a file's own, or an
    array's content. crop, stride: windows, see `Windows.of`. Of a volume, maps have the axes of the
    file. Raises UserError.
    """
    given = image if isinstance(image, (list, tuple)) else [image]
    text = range if isinstance(range, str) else ','.join(f'{float(x)!r}' for x in range)
    contents = [reading.content(x, text, self.info) for x in given]
    every = [x for content in contents for x in content.images]
    keys = names or [key for content in contents for key in content.keys]
    if len(keys) != len(every):
      raise UserError(f'{len(keys)} names for {len(every)} images')
    each = self._in_batches(every, keys, samples, seed, Windows(crop, stride))
    out = [content.arranged(each) for content in contents]
    return out if isinstance(image, (list, tuple)) else out[0]

  def _in_batches(self, images, keys, samples, seed, windows) -> Any:
    """An iterator of single Outputs, in order; images of one size are predicted together."""
    sizes: dict[tuple[int, int], list[int]] = {}
    for k, x in enumerate(images):
      sizes.setdefault(x.shape[:2], []).append(k)
    done: dict[int, Outputs] = {}
    for shape, places in sizes.items():
      rows = self.rows(shape)
      for start in [*range(0, len(places), rows)]:
        part = places[start : start + rows]
        got = self.batch([images[k] for k in part], [keys[k] for k in part], samples, seed, windows)
        got = jax.device_get(got)
        done |= {k: jax.tree.map(lambda x, i=i: x[i], got) for i, k in enumerate(part)}
    return iter([done[k] for k, _ in enumerate(images)])

  def rows(self, shape: tuple[int, int]) -> int:
    """How many images of a shape are predicted at a time."""
    at_a_time = max(self._chunk(shape), self.method.own_predictor.together)
    numbers = math.prod(shape) * self.info.num_classes * at_a_time
    most = self.config.data.eval_batch or self.config.data.batch
    return max(self._mesh.size, min(most, 4 * NUMBERS // numbers))

  def _chunk(self, shape: tuple[int, int]) -> int:
    return max(1, min(CHUNK, NUMBERS // (math.prod(shape) * self.info.num_classes)))

  def batch(
    self,
    images: Sequence[np.ndarray],
    keys: Sequence[str | int],
    samples: int,
    seed: int = 0,
    windows: Windows = WHOLE_OR_WINDOWS,
  ) -> Outputs:
    """values.images of one size -> Outputs on the devices, split over them by image.

    keys: what draws follow from, with the seed; names, or 32 bits. Rows may follow that pad the
    batch to 1, 2, 4, .. for each device, so that few sizes of a batch are compiled.
    """
    if samples < 1:
      raise UserError(f'samples is {samples}; expected 1 or more')
    if not 0 <= seed < 2**32:
      raise UserError(f'seed is {seed}; expected 0 to {2**32 - 1}')
    shape = images[0].shape[:2]
    sized = [self._sized(x) for x in images]
    example = [zlib.crc32(k.encode()) if isinstance(k, str) else k for k in keys]
    mesh = self._mesh.size
    count = mesh << max(0, math.ceil(math.log2(len(images) / mesh)))
    at = np.minimum(np.arange(count), len(images) - 1)
    batch = dict(image=np.stack(sized)[at], example=np.array(example, np.uint32)[at])
    if self._sizing:
      batch['labels'] = np.full((count, 1, *shape), -1, np.int32)
    seen = windows.of(sized[0].shape[:2], self)
    run = self._compiled(self.draws(samples), self._chunk(shape), seen)
    placed = sharding.place_batch(batch, self._mesh)
    return run(self.state, placed, jax.random.key(seed), self.calibrator)

  def seen(self, shape: tuple[int, int]) -> tuple[int, int]:
    """The size in which the net gets an image of a shape."""
    return self._sized(np.zeros((*shape, 1), np.uint8)).shape[:2] if self._sizing else shape

  def _sized(self, image: np.ndarray) -> np.ndarray:
    """An image as the net gets it; config.data.fit and resize apply as in evaluation."""
    if not self._sizing:
      return values.seen(image)
    example: Any = {'image': values.as_bytes(image), 'labels': np.zeros((1, 1, 1)), 'id': ''}
    for transform in self._sizing:
      example = transform(example, np.random.default_rng(0))
    return values.seen(example['image'])

  def _compile(self, samples: int, chunk: int, windows: Windows) -> Callable:
    method = self.method
    if windows.crop is not None:
      method = windowed(method, windows.crop, windows.stride or 0)
    predict = method.own_predictor

    def run(state: Any, batch: Batch, key: Array, calibrator: Any) -> Outputs:
      return outputs(method, predict, state, batch, key, samples, calibrator, chunk)

    return jax.jit(run, out_shardings=sharding.split(self._mesh))


def _described(config: ConfigDict) -> str:
  """Method and net."""
  option = config.method.to_dict()
  net = option.get('model') or option.get('generator') or option.get('segmenter') or {}
  return config.method.name + (f' ({net["name"]})' if 'name' in net else '')


def _check_alike(loaded: checkpointed.Loaded) -> None:
  """Raises UserError for an ensemble whose runs see an image in different ways."""
  first, *others = loaded.runs
  for other in others:
    seen = [data_options.of(run.config.data) for run in (first, other)]
    ways = {f'data.{k}': [getattr(d, k) for d in seen] for k in ('fit', 'fit_multiple', 'resize')}
    ways['range of values'] = [run.info.range for run in (first, other)]
    if differ := [k for k, (ours, theirs) in ways.items() if ours != theirs]:
      ours, theirs = ways[differ[0]]
      raise UserError(
        f'{other.path} sees images in another way than {first.path}: {differ[0]} is {theirs!r}, '
        f'not {ours!r}\n  predict with them one by one, or score them: car-jax eval'
      )


def load(
  path: str | pathlib.Path,
  *,
  step: str = '',
  calibrator: Any = None,
  changes: Sequence[tuple[str, str]] = (),
) -> Predictor:
  """The model of a run, as `print` shows it.

  step: a number, 'best' or 'latest'; '' is the best one. calibrator: the .npz of one, or one
  itself. changes: options of inference, as ('method.mirror', 'True'). Raises UserError.
  """
  loaded = checkpointed.load(path, step, changes=changes)
  if calibrator and isinstance(calibrator, (str, pathlib.Path)):
    calibrator = calibrator_files.load(calibrator, classes=loaded.info.num_classes).calibrator
  return Predictor(loaded, calibrator or None)
