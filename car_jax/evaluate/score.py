"""The device part of an evaluation: every score of one batch, one row per image.

Letters: B examples, N samples, M readers, H x W pixels, C classes, K bins.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.evaluate.catalogue import Metric, Plan
from car_jax.evaluate.predict import Prediction, Says
from car_jax.methods.base import Batch
from car_jax.metrics import calibration, flips, stochastic
from car_jax.metrics.confusion import mean_iou
from car_jax.typing import Array

# What a figure needs besides the metrics; kept per image like them.
PARTS = ('part/d_ys', 'part/d_ss', 'part/d_yy')
CURVES = ('curve/v', 'curve/u')
FLIPS = ('flips/counts', 'flips/masses', 'flips/classes')  # see metrics/flips.py


def counts_of(samples: int) -> tuple[int, ...]:
  """The sample counts at which the curve over N is taken: 1, 2, 4, .., and N itself."""
  return tuple(sorted({*(1 << k for k in range(samples.bit_length())), samples}))


def score(
  plan: Plan, detail: bool, says: Says, prediction: Prediction, batch: Batch
) -> dict[str, Any]:
  """Name -> [B] values, or sums with a first axis B for what is pooled over images.

  `detail` adds what the report draws: the parts of the main GED, its curve over N, and the bins of
  reliability diagrams. What a subject that `says` this has no score of is left out. The rows of
  padding images are scored too; the host drops them.
  """
  pairs: dict[Any, stochastic.Comparison] = {}
  metrics = [m for m in plan.metrics if not m.left_out(says)]
  scores = {m.name: _one(m, prediction, batch, pairs) for m in metrics}
  if detail:
    scores |= _details(plan, says, prediction, batch, pairs)
  return {name: value for name, value in scores.items() if value is not None}


def census(num_classes: int, ignore: int | None, batch: Batch) -> Array:
  """What the labels hold -> [B, C + 2]: votes for each class, pixels that count, all pixels.

  A pixel counts where some reader does not give the ignored label; its readers share one vote.
  """
  votes, seen = calibration.votes(batch['labels'], batch['label_weight'], ignore)
  of_class = lambda c: jnp.sum(jnp.where(batch['labels'] == c, votes, 0.0), (1, 2, 3))
  classes = jax.lax.map(of_class, jnp.arange(num_classes))
  pixels = jnp.sum(seen, (1, 2), dtype=jnp.float32)
  size = jnp.full_like(pixels, seen[0].size)
  return jnp.concatenate([classes.T, pixels[:, None], size[:, None]], 1)


def _one(metric: Metric, prediction: Prediction, batch: Batch, pairs: dict) -> Any:
  if metric.custom is not None:
    return metric.custom.score(prediction, batch)
  if not metric.about.pairs:
    return _of_probabilities(metric, prediction, batch)
  c = first(_compared(metric, prediction, batch, pairs), metric.samples)
  if metric.kind == 'hm_iou':
    return stochastic.hm_iou(c)
  if metric.kind == 'dice_max':
    return stochastic.max_dice(c)
  parts = stochastic.ged(c, estimator=metric.estimator, distance=metric.distance)
  return getattr(parts, {'diversity': 'd_ss'}.get(metric.kind, metric.kind))


def _compared(metric: Metric, prediction: Prediction, batch: Batch, pairs: dict):
  """All pairs of maps, compared once for all metrics that share a convention."""
  key = metric.classes, metric.absent, metric.ignore, metric.ignored
  if key not in pairs:
    pairs[key] = stochastic.compare(
      prediction.labels,
      batch['labels'],
      classes=metric.classes,
      absent=metric.absent,
      ignore=metric.ignore,
      ignored=metric.ignored,
      sample_weight=prediction.weight,
      reader_weight=batch['label_weight'],
    )
  return pairs[key]


def first(c: stochastic.Comparison, n: int) -> stochastic.Comparison:
  """The comparison without the samples after the first n."""
  end, weight = c.reader_weight.shape[1] + n, c.sample_weight[:, :n]
  weight = weight / jnp.sum(weight, -1, keepdims=True)
  return stochastic.Comparison(c.iou[:, :end, :end], c.dice[:, :end, :end], c.reader_weight, weight)


def _of_probabilities(metric: Metric, prediction: Prediction, batch: Batch) -> Any:
  probs = prediction.own if metric.own else prediction.mean
  if probs is None:
    return None
  if metric.kind == 'flip_error':
    counts = flips.flip_counts(batch['labels'][:, 0], prediction.labels, metric.flips)
    return flips.weighted_counts(counts, prediction.weight)
  labels, weight = batch['labels'], batch['label_weight']
  if metric.listed:
    ignore = None if metric.ignored == 'class' else metric.ignore
    kw: dict[str, Any] = dict(classes=metric.classes, num_bins=metric.bins, ignore=ignore)
    rows = calibration.listed_sums(probs, labels, weight, **kw)
    seen = calibration.votes(labels, weight, ignore)[1]
    size = jnp.sum(seen, (1, 2), dtype=jnp.int32)[:, None]
    return _per_image(rows, len(probs), metric.bins), size
  if metric.kind == 'ece':
    return bins(probs, batch, top=metric.top, num_bins=metric.bins, ignore=metric.ignore)
  if metric.kind == 'miou':
    return confusion(jnp.argmax(probs, -1), batch, metric.num_classes, metric.ignore)
  kernels = dict(nll=calibration.nll, brier=calibration.brier, kl=calibration.kl_to_readers)
  return kernels[metric.kind](probs, labels, weight, ignore=metric.ignore)


def bins(
  probs: Array, batch: Batch, *, top: bool, num_bins: int, ignore: int | None
) -> calibration.BinSums:
  """BinSums of [B, K]: of the likeliest class (top), or of class 1 against its readers' share.

  probs [B, H, W, C]; num_bins and ignore as in metrics/calibration.py.
  """
  kernel = calibration.top_label_sums if top else calibration.class_sums
  rows = kernel(probs, batch['labels'], batch['label_weight'], num_bins=num_bins, ignore=ignore)
  return _per_image(rows, len(probs), num_bins)


def _per_image(rows: calibration.BinSums, images: int, num_bins: int) -> calibration.BinSums:
  """BinSums of [BH, K] -> of [B, K]"""
  return jax.tree.map(lambda x: jnp.sum(x.reshape(images, -1, num_bins), 1), rows)


def confusion(predicted: Array, batch: Batch, num_classes: int, ignore: int | None) -> Array:
  """Pixels by reader's class and predicted class [B, C, C]; a pixel's readers share one vote."""
  classes = jnp.arange(num_classes)
  votes, _ = calibration.votes(batch['labels'], batch['label_weight'], ignore)

  def add(m, total):
    truth = batch['labels'][:, m, ..., None] == classes
    return total + jnp.einsum('bhwc,bhwd->bcd', truth * votes[:, m, ..., None], prediction)

  prediction = (predicted[..., None] == classes).astype(jnp.float32)
  start = jnp.zeros((len(predicted), num_classes, num_classes))
  return jax.lax.fori_loop(0, batch['labels'].shape[1], add, start)


def _details(
  plan: Plan, says: Says, prediction: Prediction, batch: Batch, pairs: dict
) -> dict[str, Any]:
  details: dict[str, Any] = {}
  if main := plan.main:
    c = _compared(main, prediction, batch, pairs)
    whole = not says.draws or says.single or bool(plan.flips)
    estimator = 'v' if whole else main.estimator
    parts = stochastic.ged(first(c, main.samples), estimator=estimator, distance=main.distance)
    details |= dict(zip(PARTS, parts[1:], strict=True))
    for name, estimator in zip(CURVES, 'v' if whole else 'vu', strict=False):
      curve = [
        stochastic.ged(first(c, n), estimator=estimator, distance=main.distance).ged
        for n in counts_of(plan.samples)
      ]
      details[name] = jnp.stack(curve, -1)
  top = prediction.mean.shape[-1] > 2
  ignore = plan.ignore
  for source in ('mean', 'own'):
    if says.confidence and (probs := getattr(prediction, source)) is not None:
      details[f'bins/{source}'] = bins(probs, batch, top=top, num_bins=15, ignore=ignore)
  return details | (_flip_details(plan, prediction, batch) if plan.flips else {})


def _flip_details(plan: Plan, prediction: Prediction, batch: Batch) -> dict[str, Any]:
  label = batch['labels'][:, 0]  # the mode without any flip
  counts = flips.flip_counts(label, prediction.labels, plan.flips)
  details: dict[str, Any] = {
    'flips/counts': flips.weighted_counts(counts, prediction.weight),
    'flips/masses': flips.mode_masses(counts, prediction.weight),
  }
  if prediction.own is not None:
    seen = batch.get('black_box', label)
    details['flips/classes'] = flips.class_sums(prediction.own, label, seen, plan.flips)
  return details


def finish(metric: Metric, totals: Any) -> float:
  """The value of a pooled metric from its sums over all images; nan when nothing was counted."""
  if metric.listed:
    return calibration.ece(totals[0], float(np.sum(totals[1])))
  if metric.kind == 'ece':
    return calibration.ece(totals)
  if metric.kind == 'flip_error':
    return flips.frequency_error(totals, metric.flips, pixels=metric.pixels)
  return mean_iou(totals, metric.classes)


def widened(scores: Mapping[str, Any]) -> dict[str, Any]:
  """What came from the device, as float64 and int64 for sums on the host."""
  wide = lambda x: np.asarray(x, np.int64 if x.dtype.kind in 'iu' else np.float64)
  return jax.tree.map(wide, dict(scores))
