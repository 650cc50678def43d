"""The protocol of scores: sums of each image on the device, added on the host, finished there.

A score is a frozen dataclass made of `Metric`, or of `PerImage`. Letters: B images of a batch, I
images of a data set, H x W pixels, N samples, M readers, C classes.
"""

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.typing import Array

Better = Literal['low', 'high', 'match', '']
ARROWS = {'low': '↓', 'high': '↑', 'match': '≈', '': ''}
BETTER = {
  'low': 'lower is better',
  'high': 'higher is better',
  'match': "as the readers' own",
  '': 'neither end is better',
}
State = Mapping[str, Array]
Sums = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class About:
  """What a reader of a page needs to know of a score.

  better: which end is good; match: the readers' own value. percent: a share, shown times 100.
  group: which scores it stands with. paper: where it was published.
  """

  title: str
  better: Better
  text: str
  group: str = 'further scores'
  percent: bool = False
  paper: str = ''

  @property
  def explanation(self) -> str:
    """The text, and behind it the paper."""
    return f'{self.text} ({self.paper})' if self.paper else self.text


@dataclasses.dataclass(frozen=True)
class Traits:
  """What kind of prediction it is. draws: samples were drawn; else, with their weights, they are
  the whole distribution. single: one segmentation of each image, which tells nothing of a spread.
  logits: a net's own, whose size means something. confidence: more than classes alone.
  disagreement: samples differ, and how much is known."""

  draws: bool = True
  single: bool = False
  logits: bool = False
  confidence: bool = True
  disagreement: bool = False


UNSURE = 'one label map says nothing of confidence'  # why scores are left out


class Outputs:
  """What a model says of a batch, as scores look at it. Made within a compiled function.

  Two forms: samples, or logits [B, H, W, C] alone; either gives all of these.
  """

  def __init__(self, prediction: Any):
    self._prediction = prediction
    self._shared: dict[Hashable, Any] = {}

  @property
  def labels(self) -> Array:
    """The samples' classes [B, N, H, W]."""
    if self.sampled:
      return self._prediction.labels
    return jnp.argmax(self._prediction.logits, -1)[:, None]

  @property
  def sampled(self) -> bool:
    """Whether there are samples, and not logits alone."""
    return self._prediction.labels is not None

  @property
  def weight(self) -> Array:
    """The samples' weights [B, N]; they sum to one."""
    weight = self._prediction.weight
    return jnp.ones((len(self._prediction.logits), 1)) if weight is None else weight

  @property
  def mean(self) -> Array:
    """Class probabilities [B, H, W, C], the mean of the samples'."""
    mean = self._prediction.mean
    return jax.nn.softmax(self.logits) if mean is None else mean

  @property
  def own(self) -> Array | None:
    """Class probabilities [B, H, W, C] that the method states itself."""
    return self._prediction.own

  @property
  def logits(self) -> Array:
    """[B, H, W, C]; where a model has none of its own, logarithms of the mean probabilities."""
    logits = self._prediction.logits
    return jnp.log(jnp.maximum(self._prediction.mean, LEAST)) if logits is None else logits

  @property
  def disagreement(self) -> Array | None:
    """How much the samples differ [B, H, W], in nats."""
    return self._prediction.disagreement

  def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
    """What several scores need, made by the first of them."""
    if key not in self._shared:
      self._shared[key] = make()
    return self._shared[key]


LEAST = 1e-12  # of a probability whose logarithm stands for a logit


class Source:
  """Sums that scores follow from. Equal ones of one evaluation are counted once."""

  of_rows: ClassVar[bool] = False
  """Whether the scores are of all images together but of no sums, such as of their order.

  Then `total` gets what is kept of every image [I, ..] and beside it `times` [*R, I], how often
  each counts: once, or as often as it was drawn again; and `compute` gives [*R]."""

  @property
  def source_name(self) -> str:
    """Under which its sums are kept; different for different sums."""
    raise NotImplementedError

  def state(self, outputs: Outputs, batch: Mapping[str, Array]) -> State | None:
    """Arrays [B, ..] by name, in jnp: they are compiled, and are added over images.

    batch is as in methods/base.py. None where this kind of prediction has nothing to count.
    """
    raise NotImplementedError

  def kept(self, state: Sums) -> tuple[Sums, Sums]:
    """On the host: what is kept of every image [B, ..], and totals of what is not."""
    return state, {}

  def added(self, one: Sums, other: Sums) -> Sums:
    """The totals of `kept` of two parts as one's."""
    return {k: one[k] + other[k] for k in one}

  def broken(self, state: Sums) -> np.ndarray | None:
    """Which images [B] have numbers that no sound prediction has, where that can be told."""
    return None

  def total(self, rows: Sums, whole: Sums) -> Any:
    """What `compute` gets: sums over images (rows, see `of_rows`), and the totals of `kept` ({} for
    a part of the images)."""
    return rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric(Source):
  """One score."""

  name: str = ''
  """What it is called in configs: filled in."""

  @property
  def about(self) -> About:
    """What a page says of it; a class attribute does."""
    raise NotImplementedError

  @property
  def source(self) -> Source:
    """Where its sums come from: itself, or what several scores share."""
    return self

  @property
  def source_name(self) -> str:
    return self.name

  @property
  def convention(self) -> str:
    """The name together with all that the value depends on: equal ones are comparable."""
    return self.name

  @property
  def per_image(self) -> bool:
    """Whether the score of all images is the mean of theirs."""
    return False

  def left_out(self, traits: Traits) -> str:
    """Why predictions of this kind have no such score; '' where they have."""
    return ''

  def compute(self, total: Any) -> Any:
    """The score from sums over images (int64 and float64); nan where nothing was counted. [*R] from
    rows, see `Source.of_rows`."""
    raise NotImplementedError

  def skipped(self, total: Any) -> int:
    """How many images that count it leaves out, since they have no such score."""
    return 0

  def bound(self, total: Any) -> float:
    """The largest error that the sums leave in it; nan where that is not known."""
    return 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfLabels(Metric):
  """A score against a label of every pixel; each of several readers gives one.

  absent: classes that the labels cannot have. all_modes: readers are weighted modes, not labels.
  """

  absent: tuple[int, ...] = ()
  all_modes: bool = False

  @property
  def convention(self):
    return f'{self.name}[each reader a label]'

  def left_out(self, traits):
    return 'readers are all modes with their weights, not labels' if self.all_modes else ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerImage(Metric):
  """A score of every image; that of a data set is their mean. Give it `score`."""

  @property
  def per_image(self) -> bool:
    return True

  def score(self, outputs: Outputs, batch: Mapping[str, Array]) -> Array | None:
    """[B] float32, nan for an image without a value."""
    raise NotImplementedError

  def state(self, outputs, batch):
    values = self.score(outputs, batch)
    if values is None:
      return None
    there = ~jnp.isnan(values)
    return {'sum': jnp.where(there, values, 0.0), 'images': there.astype(jnp.int32)}

  def compute(self, total):
    return float(total['sum'] / total['images']) if total['images'] else float('nan')

  def values(self, rows: Sums) -> np.ndarray:
    """[I] of each image, nan where it has none."""
    return np.where(rows['images'] > 0, rows['sum'], np.nan)
