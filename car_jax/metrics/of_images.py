"""Does a model know which images it fails on? Scores of each image's risk and its confidence.

An image's risk is one minus the Dice score of the likeliest classes: against a reader, the mean
over the scored classes that either has; then the mean over readers. A confidence is one number from
the model alone, higher where it is surer. Only pixels count that some reader knows; but borders are
those of the whole prediction, and `mass_ratio` looks at all neighbours of a pixel that counts.

Letters: B images of a batch, I of a data set, R resamples, M readers, H x W pixels, C classes.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.metrics import aggregate, overlap, ranking, scores, selective, soft_dice, stochastic
from car_jax.metrics.base import UNSURE, Metric, Outputs, Source
from car_jax.metrics.confusion_matrix import ratio
from car_jax.metrics.image_texts import CONFIDENCES, OF_IMAGES
from car_jax.metrics.of_probabilities import named
from car_jax.metrics.pixel_counts import parts_of
from car_jax.typing import Array

VOID = -1  # of labels that say nothing
STEPS = 65535  # in which entropy is counted, from 0 to log C: whole numbers add up in any order
# confidence -> how the map of entropy becomes one number, on the host; see metrics/aggregate.py
OF_MAPS = {
  'patch10': 'patch[10]',
  'above0.9': 'above_quantile[0.9]',
  'boundary4': 'boundary[4]',
  'mass_ratio': 'mass_ratio[edges]',
}


@dataclasses.dataclass(frozen=True)
class View:
  """A batch: samples [B, N, H, W] (None: logits alone) and their weights [B, N], probs
  [B, H, W, C], the likeliest classes [B, H, W], readers [B, M, H, W], VOID where they say nothing,
  and their weights [B, M], which pixels count [B, H, W], entropy in STEPS [B, H, W]."""

  samples: Array | None
  sample_weight: Array
  probs: Array
  predicted: Array
  readers: Array
  weight: Array
  seen: Array
  entropy: Array
  classes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Images:
  """risk [I], confidences [I] by name, nan where an image has none; times [*R, I], how often each
  image counts."""

  risk: np.ndarray
  confidences: dict[str, np.ndarray]
  times: np.ndarray

  def known(self, confidence: str) -> np.ndarray:
    """Which images have both [I]."""
    return ~(np.isnan(self.risk) | np.isnan(self.confidences[confidence]))


@dataclasses.dataclass(frozen=True)
class ImageRisks(Source):
  """The risk of every image and its confidences. absent: whether an image and a reader without any
  scored class agree ('one') or are left out ('skip')."""

  of_rows: ClassVar[bool] = True

  confidences: tuple[str, ...]
  classes: tuple[int, ...]
  absent: str = 'one'
  ignore: int | None = None

  @property
  def source_name(self):
    return f'images[{",".join(self.confidences)}]'

  def state(self, outputs, batch):
    view = self._view(outputs, batch)
    state = {'risk': risks(view, self.absent)}
    state |= {name: ON_DEVICE[name](view) for name in self.confidences if name in ON_DEVICE}
    if {*self.confidences} & {*OF_MAPS}:
      few = dict(entropy=view.entropy, predicted=view.predicted)
      state |= {k: v.astype(jnp.uint16) for k, v in few.items()} | {'seen': view.seen}
    return state

  def _view(self, outputs: Outputs, batch: Any) -> View:
    probs, weight = outputs.mean, batch['label_weight']
    readers, many = jnp.asarray(batch['labels'], jnp.int32), probs.shape[-1]
    void = (
      (readers < 0)
      | (readers >= many)
      | (readers == (VOID if self.ignore is None else self.ignore))
    )
    if 'unknown' in batch:
      void |= batch['unknown'][:, None]
    readers = jnp.where(void, VOID, readers)
    predicted, entropy = self._softmax(outputs)
    share = entropy / np.log(max(many, 2))
    return View(
      samples=outputs.labels if outputs.sampled else None,
      sample_weight=outputs.weight,
      probs=probs,
      predicted=predicted,
      readers=readers,
      weight=weight,
      seen=jnp.any(stochastic.known(readers, weight, VOID), 1),
      entropy=jnp.round(STEPS * jnp.clip(share, 0, 1)).astype(jnp.int32),
      classes=self.classes,
    )

  def _softmax(self, outputs: Outputs) -> tuple[Array, Array]:
    """The likeliest classes and their entropy in nats [B, H, W]; of logits as others count them."""
    if outputs.sampled:
      return jnp.argmax(outputs.mean, -1), scores.entropy(outputs.mean)
    p, shape = parts_of(outputs), outputs.logits.shape[:3]
    return p.predicted.reshape(shape), p.entropy.reshape(shape)

  def kept(self, state):
    values = {'risk': state['risk']} | {k: self._confidence(k, state) for k in self.confidences}
    kept = np.stack([*values.values()], -1)
    known = ~np.isnan(kept)
    return {'values': np.where(known, kept, 0), 'known': known.astype(np.int64)}, {}

  def _confidence(self, name: str, state: Any) -> np.ndarray:
    """[B]"""
    if name in OF_MAPS:
      maps = zip(
        state['entropy'] / STEPS, state['predicted'], state['seen'].astype(bool), strict=True
      )
      how = OF_MAPS[name]
      return -np.array([aggregate.aggregate(u, how, prediction=p, valid=v) for u, p, v in maps])
    if state[name].ndim == 1:
      return state[name]
    entropy, pixels = np.moveaxis(state[name].sum(-1), 1, 0)
    return -ratio(entropy, pixels * STEPS)

  def total(self, rows, whole):
    risk, *of = np.where(rows['known'] > 0, rows['values'], np.nan).T
    return Images(risk, dict(zip(self.confidences, of, strict=True)), rows['times'])


def risks(view: View, absent: str = 'one') -> Array:
  """[B], nan where no reader knows a pixel; with absent='skip' also without a scored class."""
  matrix = confusions(view.predicted, view.readers, view.probs.shape[-1])
  both, size = jnp.diagonal(matrix, 0, 2, 3), jnp.sum(matrix, 2) + jnp.sum(matrix, 3)
  dice = jnp.where(size > 0, 2 * both / jnp.maximum(size, 1), jnp.nan)[..., view.classes]
  dice = overlap.class_mean(dice, 'skip')  # [B, M]
  none = overlap.ABSENT[absent]
  weight = jnp.where(jnp.any(size > 0, -1), view.weight, 0)
  dice = jnp.where(weight > 0, jnp.where(jnp.isnan(dice), none, dice), 0)
  return 1 - jnp.sum(weight * dice, 1) / jnp.sum(weight, 1)


def confusions(predicted: Array, readers: Array, classes: int) -> Array:
  """Pixels by a reader's and the predicted class [B, M, C, C], of those the reader knows."""
  drop = classes**2
  at = jnp.where(readers == VOID, drop, readers * classes + predicted[:, None])
  count = lambda k: jnp.zeros(drop, jnp.int32).at[k.reshape(-1)].add(1, mode='drop')
  return jax.vmap(jax.vmap(count))(at).reshape(*readers.shape[:2], classes, classes)


def _rows(view: View, where: Array) -> Array:
  """Entropy and pixels of each row of an image [B, 2, H]."""
  return jnp.stack([jnp.sum(jnp.where(where, x, 0), -1) for x in (view.entropy, 1)], 1)


def _foreground(view: View) -> Array:
  """Where a scored class is predicted; of an image without one, everywhere."""
  scored = jnp.zeros(view.probs.shape[-1], bool).at[jnp.array(view.classes)].set(True)
  where = view.seen & scored[view.predicted]
  return _rows(view, jnp.where(jnp.any(where, (1, 2), keepdims=True), where, view.seen))


def _pairwise_dice(view: View) -> Array:
  if view.samples is None:
    return jnp.full(len(view.predicted), jnp.nan)
  kw: dict[str, Any] = dict(classes=view.classes, ignore=VOID, reader_weight=view.weight)
  return stochastic.pairwise_dice(
    view.samples, readers=view.readers, sample_weight=view.sample_weight, **kw
  )


def _soft_dice(view: View) -> Array:
  kw: dict[str, Any] = dict(samples=view.samples, sample_weight=view.sample_weight)
  return soft_dice.class_confidence(
    view.probs, view.predicted, classes=view.classes, valid=view.seen, **kw
  )


ON_DEVICE: dict[str, Callable[[View], Array]] = {
  'mean': lambda view: _rows(view, view.seen),
  'foreground': _foreground,
  'pairwise_dice': _pairwise_dice,
  'soft_dice': _soft_dice,
}
DEFAULT = 'mean'
LIMIT = 0.5  # of the risk of an image that does not fail
AREAS = ('image_aurc', 'image_eaurc', 'image_augrc')
NAMES = (*AREAS, 'failure_auroc', 'image_spearman')


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfImages(Metric):
  """A score by `kind`, one of NAMES, of one of CONFIDENCES.

  form: of an area, see metrics/selective.py. limit: the risk above which an image is a failure.
  """

  kind: str
  images: ImageRisks
  samples: int
  confidence: str = DEFAULT
  form: str = 'mean'
  limit: float = LIMIT

  @property
  def source(self) -> Source:
    return self.images

  @property
  def about(self):
    about = OF_IMAGES[self.kind]
    title = about.title if self.confidence == DEFAULT else f'{about.title}, by {self.confidence}'
    text = f'{about.text} Confidence is here {CONFIDENCES[self.confidence]}.'
    if self.kind == 'failure_auroc':
      text += f' A failure has a risk above {self.limit:g}.'
    return dataclasses.replace(about, title=title, text=text)

  @property
  def convention(self):
    of = self.images
    parts = [f'by {self.confidence}', 'classes=' + '+'.join(map(str, of.classes))]
    parts.append(stochastic.absent_part(of.absent))
    parts += [self.form] if self.kind in AREAS else []
    parts += [f'risk={self.limit:g}'] if self.kind == 'failure_auroc' else []
    ignore = '' if of.ignore is None else f'ignore={of.ignore}'
    return named(self.kind, False, self.samples, *parts, ignore=ignore)

  def left_out(self, traits):
    if self.confidence == 'pairwise_dice':
      return 'one segmentation says nothing of a spread' if traits.single or traits.logits else ''
    return '' if traits.confidence else UNSURE

  def compute(self, total: Images):
    known = total.known(self.confidence)
    confidence, risk = total.confidences[self.confidence][known], total.risk[known]
    times = total.times[..., known]
    if self.kind == 'image_spearman':
      return ranking.spearman(confidence, 1 - risk, times)
    if self.kind == 'failure_auroc':
      return selective.curve(confidence, risk > self.limit, times).auroc()
    ours = selective.curve(confidence, risk, times)
    if self.kind == 'image_augrc':
      return ours.augrc(self.form)
    least = selective.best_curve(risk, times).aurc(self.form) if self.kind == 'image_eaurc' else 0
    return ours.aurc(self.form) - least

  def skipped(self, total: Images):
    return int(np.sum(~total.known(self.confidence)))


def sharing(metrics: Sequence[Metric]) -> tuple[Metric, ...]:
  """The same, of which those of images have one source with all their confidences."""
  names = tuple(dict.fromkeys(m.confidence for m in metrics if isinstance(m, OfImages)))
  shared = lambda m: dataclasses.replace(m.images, confidences=names)
  return tuple(
    dataclasses.replace(m, images=shared(m)) if isinstance(m, OfImages) else m for m in metrics
  )


def split(name: str) -> tuple[str, str]:
  """The score and the confidence that a name holds: 'failure_auroc[mean,risk=0.3]' ->
  ('failure_auroc[risk=0.3]', 'mean')."""
  kind, _, options = name.rstrip(']').partition('[')
  parts = [o for o in options.split(',') if o]
  confidence = next((o for o in parts if o in CONFIDENCES), DEFAULT)
  rest = ','.join(o for o in parts if o not in CONFIDENCES)
  return (f'{kind}[{rest}]' if rest else kind), confidence
