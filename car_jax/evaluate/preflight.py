"""What can be known of a run before its first step: that its evaluations and report will work."""

import collections
import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from car_jax import batch_size, lookup
from car_jax.data import options as data_options
from car_jax.data import pipeline, sources
from car_jax.data.transforms import PLAIN_CROPS
from car_jax.errors import UserError, naming, reason
from car_jax.evaluate import plan
from car_jax.evaluate.validate import Validation

MOST_BYTES = 4e9  # of a training split whose images' sizes are looked up


def check(config: Any, dataset: Any, source: Any, run: Any, state: Any) -> list[str]:
  """The evaluations of a run (loop.Run) and its report, tried without data -> lines to print.

  source: the training split. Checked: splits, keys, metrics and their options, sizes of all images,
  that an update is made; and by shapes alone that the method predicts the smallest image and the
  largest, and that they are scored. Raises UserError, which names the entry of the config.
  """
  check_training(source, config.data)
  check_updates(config)
  entries: dict[str, Validation] = {f'evals.{k}': v for k, v in run.validations.items()}
  lines: dict[str, None] = {}
  if run.method.predictors():
    with naming('config.report'):
      spec = plan.report_spec(config)
      entries['report'] = Validation(run.method, dataset, config, spec, run.mesh)
  tried: set[Any] = set()
  for name, entry in entries.items():
    with naming(f'config.{name}'):
      if not len(entry.source):
        raise UserError('the split has no image\n  choose another split')
      lines |= dict.fromkeys(filter(None, [pipeline.cut(entry.source, config.data)]))
      _try(entry, state, config.data, tried)
  return [*lines]


def _try(entry: Validation, state: Any, data: Mapping[str, Any], tried: set[Any]) -> None:
  """The method and the scores on shapes of images that were not `tried` yet."""
  shapes = pipeline.shapes(entry.source, data)
  ends = sorted({*shapes}, key=lambda shape: shape[0] * shape[1])
  for shape in dict.fromkeys([ends[0], ends[-1]]):
    if shape in tried:
      continue
    tried.add(shape)
    one = sources.Picked(entry.source, [shapes.index(shape)])
    with contextlib.closing(entry.batches(one)) as batches:
      batch = next(batches)
    try:
      entry.shapes(state, batch)
    except UserError:
      raise
    except Exception as e:
      h, w = np.shape(batch['image'])[1:3]
      raise UserError(
        f'images of {w}x{h} cannot be predicted and scored ({reason(e)})\n'
        f'  use --config.data.eval_size={data_options.of(data).size or min(h, w)}, or other data'
      ) from e


def check_updates(config: Any) -> None:
  """Raises UserError for an optimizer whose first update would come after the last step."""
  for entry in batch_size.optimizers(config.method, lookup.find('method', config.method.name)):
    if (steps := entry.get('accumulate', 1)) > config.steps > 0:
      raise UserError(
        f'an optimizer updates every accumulate={steps} steps, and config.steps is {config.steps}: '
        f'nothing would be learnt\n  use --config.steps={steps} or more, or accumulate less'
      )


def check_training(source: Any, data: Any) -> None:
  """Raises UserError for images that no batch of training could hold, by their sizes.

  Not looked at: sources that make their own batches, and splits of more than MOST_BYTES.
  """
  if isinstance(source, sources.Stream) or source.num_bytes > MOST_BYTES:
    return
  data = data_options.of(data)
  shapes, size = source.sizes, data.size
  counts = collections.Counter(shapes)
  where = lambda shape: f'{source[shapes.index(shape)]["id"]} is {shape[1]}x{shape[0]}'
  (usual, _), *others = counts.most_common()
  if not size and others:
    raise UserError(
      f'training images differ in size: {where(usual)}, {where(others[0][0])}\n'
      f'  use --config.data.size={min(map(min, shapes))}, with crop="random" to see all of an image'
    )
  if not size and data.rot90 and usual[0] != usual[1]:
    raise UserError(f'config.data.rot90 turns square images; {where(usual)}\n  set it to False')
  small = [s for s in counts if min(s) < size]
  if small and not data.pad and data.crop in PLAIN_CROPS:
    share = f'{sum(counts[s] for s in small):,} of {len(shapes):,} training images'
    raise UserError(
      f'{share} are smaller than config.data.size {size}: {where(small[0])}\n'
      f'  use --config.data.size={min(map(min, small))} or less, or set data.pad=True'
    )
