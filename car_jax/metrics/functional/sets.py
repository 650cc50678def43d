"""Samples of a segmentation against its readers: GED, matched IoU, Dice, areas, diversity.

Arguments:
  samples   class ids, [N, H, W] of an image or [B, N, H, W]
  labels    the readers' class ids, [M, H, W] or [B, M, H, W]; without M of one reader
and the keywords of `Conventions`. Each returns a float for an image and float64 [B] for a batch,
nan for an image without a value. Docstrings begin with the convention's name at the defaults, for
16 samples (docs/metrics.md).
"""

from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

import jax

from car_jax.metrics import readers, stochastic
from car_jax.metrics.functional import inputs


class Maps(TypedDict, total=False):
  """What is read and how; see metrics/stochastic.py for ignore and ignored."""

  num_classes: int
  """2. Another id in an array is an error."""
  classes: Sequence[int] | None
  """The ids that are scored. None: of two classes 1, of more all, but never the ignored one."""
  sample_weight: Any
  """[N] or [B, N]. None: equal; 0: padding."""
  label_weight: Any
  """[M] or [B, M]. None: equal; 0: padding."""
  ignore: int | None
  """None."""
  ignored: str
  """'void'."""


class Conventions(Maps, total=False):
  """What scores of pairs of maps depend on."""

  absent: str
  """'one'; see metrics/stochastic.py."""


_ged = jax.jit(stochastic.ged, static_argnames=('estimator', 'distance'))
_hm_iou = jax.jit(stochastic.hm_iou)
_max_dice = jax.jit(stochastic.max_dice, static_argnames='best')
_dice_match = jax.jit(readers.dice_match, static_argnames='unmatched')
_crps_area = jax.jit(readers.crps_area, static_argnames='estimator')
_compare = jax.jit(stochastic.compare, static_argnames=('classes', 'absent', 'ignore', 'ignored'))


@inputs.named_keywords
def ged(
  samples: Any,
  labels: Any,
  *,
  estimator: str = 'v',
  distance: str = 'iou',
  **conventions: Unpack[Conventions],
) -> Any:
  """ged16[v,absent=1,fg]: squared generalised energy distance (arXiv:1806.05034), 0 is best.

  estimator, distance: as in `stochastic.ged`.

  >>> from car_jax.metrics import ged
  >>> labels = [[[0, 1]], [[1, 1]]]  # two readers of an image of 1 x 2 pixels
  >>> ged(labels, labels)  # samples that are what the readers say
  0.0
  >>> ged([[[0, 1]]], labels)
  0.25
  >>> ged([[[[0, 1]]], [[[1, 0]]]], [labels, labels]).tolist()  # two images, one sample of each
  [0.25, 1.25]
  """
  maps, alone = compared('ged', samples, labels, **conventions)
  return inputs.per_image(_ged(maps, estimator=estimator, distance=distance).ged, alone)


@inputs.named_keywords
def diversity(
  samples: Any,
  labels: Any,
  *,
  estimator: str = 'v',
  distance: str = 'iou',
  **conventions: Unpack[Conventions],
) -> Any:
  """diversity16[v,absent=1,fg]: mean distance of two samples; best where it is the readers' own.

  labels say which pixels count where some are ignored. estimator, distance: as in `ged`.

  >>> from car_jax.metrics import diversity
  >>> diversity([[[0, 1]], [[1, 1]]], [[0, 1]])
  0.25
  >>> diversity([[[0, 1]], [[1, 1]]], [[0, 1]], estimator='u')
  0.5
  """
  maps, alone = compared('diversity', samples, labels, **conventions)
  return inputs.per_image(_ged(maps, estimator=estimator, distance=distance).d_ss, alone)


@inputs.named_keywords
def hm_iou(samples: Any, labels: Any, **conventions: Unpack[Conventions]) -> Any:
  """hm_iou16[absent=1,fg]: mean IoU of samples and readers, matched one to one; 1 is best.

  >>> from car_jax.metrics import hm_iou
  >>> hm_iou([[[1, 1]], [[0, 1]]], [[[0, 1]], [[1, 1]]])
  1.0
  >>> hm_iou([[[0, 1]], [[0, 1]]], [[[0, 1]], [[1, 1]]])
  0.75
  """
  maps, alone = compared('hm_iou', samples, labels, **conventions)
  return inputs.per_image(_hm_iou(maps), alone)


@inputs.named_keywords
def dice_max(
  samples: Any, labels: Any, *, best: str = 'samples', **conventions: Unpack[Conventions]
) -> Any:
  """dice_max16[absent=1,fg]: Dice of the best sample for each reader, their mean; 1 is best.

  D_max of arXiv:2304.04745. It grows with the number of samples. best: as in `stochastic.max_dice`;
  'readers' is Dice_max of arXiv:2403.13438.

  >>> from car_jax.metrics import dice_max
  >>> dice_max([[[1, 1]], [[0, 1]], [[0, 0]]], [[[0, 1]], [[1, 1]]])
  1.0
  >>> round(dice_max([[[0, 1]]], [[[0, 1]], [[1, 1]]]), 4)  # 1 and 2/3
  0.8333
  """
  maps, alone = compared('dice_max', samples, labels, **conventions)
  return inputs.per_image(_max_dice(maps, best=best), alone)


@inputs.named_keywords
def dice_match(
  samples: Any, labels: Any, *, unmatched: str = 'nan', **conventions: Unpack[Conventions]
) -> Any:
  """dice_match16[absent=1,fg]: Dice of readers and samples matched one to one; 1 is best.

  Dice_match of arXiv:2403.13438: samples that are left over do not count. Fewer samples than
  readers: nan, or unmatched='zero' counts 0 for a reader without one.

  >>> from car_jax.metrics import dice_match
  >>> dice_match([[[1, 1]], [[0, 1]], [[0, 0]]], [[[0, 1]], [[1, 1]]])
  1.0
  >>> dice_match([[[0, 1]]], [[[0, 1]], [[1, 1]]], unmatched='zero')
  0.5
  """
  maps, alone = compared('dice_match', samples, labels, **conventions)
  return inputs.per_image(_dice_match(maps, unmatched=unmatched), alone)


@inputs.named_keywords
def crps_area(
  samples: Any, labels: Any, *, estimator: str = 'v', **conventions: Unpack[Maps]
) -> Any:
  """crps_area16[v,fg]: CRPS of the samples' areas for each reader's, in pixels; 0 is best.

  A reader's area and those of samples are within what this reader knows. estimator: as in `ged`, of
  pairs of samples.

  >>> from car_jax.metrics import crps_area
  >>> crps_area([[[0, 1]], [[1, 1]]], [[0, 1]])  # (0 + 1) / 2 - 1 / 4
  0.25
  >>> crps_area([[[1, 1]]], [[0, 1]])  # one sample: the error of its area
  1.0
  """
  maps, alone = compared('crps_area', samples, labels, **conventions)
  return inputs.per_image(_crps_area(maps, estimator=estimator), alone)


def compared(
  function: str,
  samples: Any,
  labels: Any,
  *,
  num_classes: int = 2,
  classes: Sequence[int] | None = None,
  sample_weight: Any = None,
  label_weight: Any = None,
  absent: str = 'one',
  ignore: int | None = None,
  ignored: str = 'void',
) -> tuple[stochastic.Comparison, bool]:
  """The comparison of all maps, and whether there is one image without an axis B."""
  ids = inputs.scored(function, classes, num_classes, ignore)
  maps = inputs.sets(function, samples, labels, sample_weight, label_weight, num_classes, ignore)
  pairs = _compare(
    maps.samples,
    maps.labels,
    classes=ids,
    sample_weight=maps.sample_weight,
    reader_weight=maps.label_weight,
    absent=absent,
    ignore=ignore,
    ignored=ignored,
  )
  return pairs, maps.alone
