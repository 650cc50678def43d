"""Scores that are pooled over all pixels: histograms of confidence or of any score, a matrix."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np

from car_jax.metrics import (
  calibration,
  confidence_groups,
  confusion_matrix,
  onepass,
  ranking,
  rejection,
  wide,
)
from car_jax.metrics.clu_metrics.base import Counts, masked, options_of
from car_jax.metrics.functional import inputs, label_maps, probabilities
from car_jax.metrics.functional.rankings import surest_last
from car_jax.typing import Array

FINE = 1 << 15  # bins of a confidence
SCORES = 1 << 16  # bins of any score


class Calibration(Counts):
  """Pixels, summed confidence and summed truth by bin; reads probs, labels and label_weight.

  mask [B]: False for images that are padding.
  """

  pixels: Array
  conf: Array
  hits: Array

  @classmethod
  def num_bins(cls) -> int:
    return FINE

  @classmethod
  def bins(cls, conf: Array) -> Array:
    """Of each confidence, by its log-odds."""
    conf = conf.astype(jnp.float32)
    return onepass.odds_bins_of(jnp.log(conf) - jnp.log1p(-conf), FINE)

  @classmethod
  def from_model_output(
    cls, *, probs: Any, labels: Any, label_weight: Any = None, mask: Any = None, **_: Any
  ) -> Self:
    chosen = cls.options['class_id'], label_weight, cls.options['ignore']
    found = probabilities.confidences(cls.__name__, probs, labels, *chosen)
    seen = found.seen & masked(cls, mask, len(found.seen))[:, None, None]
    conf, hits, seen = (x.reshape(-1) for x in (found.conf, found.hits, seen))
    k, n = cls.bins(conf), cls.num_bins()
    sums = wide.add_up(k, conf, seen, n), wide.add_up(k, hits, seen, n)
    return cls(wide.count(k, seen, n), *sums)

  @classmethod
  def shapes(cls) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(('pixels', 'conf', 'hits'), (cls.num_bins(),))

  def groups(self) -> confidence_groups.Tied:
    """The counts in the order of rising confidence."""
    conf, hits = (wide.int64(x) * wide.STEP for x in (self.conf, self.hits))
    return confidence_groups.Tied(wide.int64(self.pixels), conf, hits)


class ECE(Calibration):
  """`ece` over all pixels; reads probs, labels and label_weight.

  >>> from car_jax.metrics import ECE
  >>> metric = ECE.with_options(num_bins=10)
  >>> first = metric.from_model_output(probs=[[0.25, 0.75]], labels=[1])
  >>> first.merge(metric.from_model_output(probs=[[0.25, 0.75]], labels=[0])).compute()
  0.25
  """

  options = options_of(probabilities.ece)

  @classmethod
  def num_bins(cls) -> int:
    return cls.options['num_bins']

  @classmethod
  def bins(cls, conf: Array) -> Array:
    return calibration.bins_of(conf, cls.num_bins())

  def compute(self) -> float:
    return calibration.ece(calibration.BinSums(*self.groups()))


class AdaptiveECE(Calibration):
  """`adaptive_ece` over all pixels, from a histogram; reads probs, labels and label_weight.

  `bound` is the largest difference from the exact value.

  >>> from car_jax.metrics import AdaptiveECE
  >>> metric = AdaptiveECE.from_model_output(probs=[[0.25, 0.75], [0.5, 0.5]], labels=[1, 0])
  >>> metric.compute()
  0.375
  """

  options = options_of(probabilities.adaptive_ece)

  def compute(self) -> float:
    return confidence_groups.adaptive_ece(self.groups(), self.options['num_bins'])

  def bound(self) -> float:
    spread = onepass.class_spreads(FINE)
    return confidence_groups.tied_bound(self.groups(), self.options['num_bins'], spread=spread)[0]


class KSError(Calibration):
  """`ks_error` over all pixels, from a histogram; reads probs, labels and label_weight.

  `bound` is the largest difference from the exact value.

  >>> from car_jax.metrics import KSError
  >>> KSError.from_model_output(probs=[[0.25, 0.75], [0.5, 0.5]], labels=[1, 0]).compute()
  0.375
  """

  options = options_of(probabilities.ks_error)

  def compute(self) -> float:
    return confidence_groups.ks_error(self.groups())

  def bound(self) -> float:
    return confidence_groups.tied_bound(self.groups(), spread=onepass.class_spreads(FINE))[1]


class Ranking(Counts):
  """Positives and negatives by bin of their score; reads score, positive and, if given, counted.

  Scores within a bin, of 0.07 % of their size or 6e-8, count as equal; so do those beyond 1e5.
  `bound` is the largest difference that this makes. mask [B]: False for images that are padding.
  """

  positives: Array
  negatives: Array
  nans: Array
  kernel: ClassVar[Callable[..., float]]

  @classmethod
  def from_model_output(
    cls, *, score: Any, positive: Any, counted: Any = None, mask: Any = None, **_: Any
  ) -> Self:
    x = inputs.ranked(cls.__name__, score, positive, counted)
    images = len(x.score) if x.score.ndim else 1
    there = masked(cls, mask, images).reshape(-1, *(1,) * (x.score.ndim - 1))
    used, value, true = (
      (x.counted & there).reshape(-1),
      x.score.reshape(-1),
      x.positive.reshape(-1),
    )
    value = jnp.asarray(value, jnp.float32)
    nan = jnp.isnan(value)
    k = onepass.bins_of(value, 'any', SCORES)
    count = lambda which: wide.count(k, used & ~nan & which, SCORES)
    return cls(count(true), count(~true), wide.of(jnp.sum(used & nan, dtype=jnp.uint32)))

  @classmethod
  def shapes(cls) -> dict[str, tuple[int, ...]]:
    return dict(positives=(SCORES,), negatives=(SCORES,), nans=())

  def counts(self) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives in the order of rising scores; ValueError where scores are nan."""
    if nans := wide.int64(self.nans):
      raise ValueError(f'{type(self).__name__}: {nans} scores are nan')
    return wide.int64(self.positives), wide.int64(self.negatives)

  def compute(self) -> float:
    return type(self).kernel(*self.counts())

  def bound(self) -> float:
    return ranking.bound(type(self).kernel, *self.counts())


class AUROC(Ranking):
  """`auroc` over all pixels, from a histogram; reads score and positive.

  >>> from car_jax.metrics import AUROC
  >>> AUROC.from_model_output(score=[0.1, 0.4, 0.35, 0.8], positive=[0, 0, 1, 1]).compute()
  0.75
  """

  kernel = staticmethod(ranking.auroc)


class AUPR(Ranking):
  """`aupr` over all pixels, from a histogram; reads score and positive.

  >>> from car_jax.metrics import AUPR
  >>> metric = AUPR.from_model_output(score=[0.1, 0.4, 0.35, 0.8], positive=[0, 0, 1, 1])
  >>> round(metric.compute(), 4)
  0.7917
  """

  kernel = staticmethod(ranking.aupr)


class AveragePrecision(Ranking):
  """`average_precision` over all pixels, from a histogram; reads score and positive.

  >>> from car_jax.metrics import AveragePrecision
  >>> metric = AveragePrecision.from_model_output(score=[0.1, 0.4, 0.35], positive=[0, 0, 1])
  >>> metric.compute()
  0.5
  """

  kernel = staticmethod(ranking.average_precision)


class FPR95(Ranking):
  """`fpr95` over all pixels, from a histogram; reads score and positive.

  >>> from car_jax.metrics import FPR95
  >>> FPR95.from_model_output(score=[0.1, 0.4, 0.35, 0.8], positive=[0, 0, 1, 1]).compute()
  0.5
  """

  kernel = staticmethod(ranking.fpr_at_tpr)


class PRR(Ranking):
  """`prr` over all pixels, from a histogram; reads score, an uncertainty, and positive, errors.

  >>> from car_jax.metrics import PRR
  >>> PRR.from_model_output(score=[0.9, 0.6, 0.2, 0.1], positive=[1, 0, 0, 0]).compute()
  1.0
  """

  kernel = staticmethod(surest_last(rejection.prr))


class AURC(Ranking):
  """`aurc` over all pixels, from a histogram; reads score, an uncertainty, and positive, errors.

  >>> from car_jax.metrics import AURC
  >>> AURC.from_model_output(score=[0.9, 0.6, 0.2, 0.1], positive=[1, 0, 0, 0]).compute()
  0.0625
  """

  kernel = staticmethod(surest_last(rejection.aurc))


class AUGRC(Ranking):
  """`augrc` over all pixels, from a histogram; reads score, an uncertainty, and positive, errors.

  >>> from car_jax.metrics import AUGRC
  >>> AUGRC.from_model_output(score=[0.9, 0.6, 0.2, 0.1], positive=[1, 0, 0, 0]).compute()
  0.0625
  """

  kernel = staticmethod(surest_last(rejection.augrc))


class Confusion(Counts):
  """`confusion` over all pixels; reads predicted, labels and label_weight.

  mask [B]: False for images that are padding.

  >>> from car_jax.metrics import Confusion
  >>> metric = Confusion.with_options(num_classes=3)
  >>> metric.from_model_output(predicted=[0, 1, 1], labels=[0, 1, 2]).compute().tolist()
  [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]
  """

  votes: Array
  strange: Array
  options = options_of(label_maps.confusion)

  @classmethod
  def from_model_output(
    cls, *, predicted: Any, labels: Any, label_weight: Any = None, mask: Any = None, **_: Any
  ) -> Self:
    classes, ignore = cls.options['num_classes'], cls.options['ignore']
    p = inputs.label_maps(cls.__name__, predicted, labels, label_weight, classes, ignore)
    share = calibration.votes(p.labels, p.label_weight, ignore)[0]
    share *= masked(cls, mask, len(share))[:, None, None, None]
    said = jnp.broadcast_to(jnp.asarray(p.predicted, jnp.int32)[:, None], share.shape)
    known = (p.labels >= 0) & (p.labels < classes) & (said >= 0) & (said < classes)
    k = jnp.where(known, p.labels * classes + said, classes**2).reshape(-1)
    votes = wide.add_up(k, share.reshape(-1), (known & (share > 0)).reshape(-1), classes**2)
    strange = jnp.sum((share > 0) & ~known, dtype=jnp.uint32)
    return cls(votes.reshape(classes, classes, 2), wide.of(strange))

  @classmethod
  def shapes(cls) -> dict[str, tuple[int, ...]]:
    return dict(votes=(cls.options['num_classes'],) * 2, strange=())

  def compute(self) -> Any:
    """Raises ValueError where ids were none of the classes, which `jit` does not see before."""
    if strange := wide.int64(self.strange):
      classes = self.options['num_classes']
      raise ValueError(f'{type(self).__name__}: {strange} ids are not in 0 to {classes - 1}')
    return wide.int64(self.votes) * wide.STEP


class MeanIoU(Confusion):
  """`miou` over all pixels; reads predicted, labels and label_weight.

  >>> from car_jax.metrics import MeanIoU
  >>> metric = MeanIoU.with_options(classes=(0, 1))
  >>> metric.from_model_output(predicted=[0, 1, 1, 1], labels=[0, 0, 1, 1]).compute()
  0.5833333333333333
  """

  options = options_of(label_maps.miou)

  def compute(self) -> float:
    of = self.options
    classes = inputs.scored('MeanIoU', of['classes'], of['num_classes'], of['ignore'])
    return confusion_matrix.mean_iou(super().compute(), classes)
