"""What to type once data are prepared: a training whose batch, sizes and splits fit them."""

import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from car_jax.data import sources
from car_jax.data.prepared import default_data_dir
from car_jax.datasets import base
from car_jax.errors import UserError

BATCHES = (12, 8, 4, 2, 1)
MULTIPLE, LARGEST, CENTRE = 32, 128, 512  # sides: of the demo's nets, of training, of evaluation
LARGE = 1 << 21  # pixels of an image that is much to evaluate as a whole
MOST_BYTES = 4e9  # of a split whose images' sizes are looked up


def lines(name: str, built: Any, config: Any, data_dir: pathlib.Path) -> list[str]:
  """The command that uses a prepared data set, made by the builder `built` with a config.

  Where its training is FOR_ACCELERATOR, it is a small one that fits the data, and this is said.
  """
  training = built.TRAINING
  full = name if config.name == 'default' else f'{name}/{config.name}'
  if training.startswith('reliability'):  # to be tested on, not trained on
    return [f'next: name {full} in configs/{training}.py, then car-jax eval --config that']
  key = 'data.source' if training.startswith('sac_') else 'data'
  there = shlex.quote(str(data_dir))
  where = '' if data_dir == default_data_dir() else f' --config.{key}.data_dir={there}'
  evaluation = f'next: car-jax eval --checkpoint RUN --config.data.name={full}'
  if config.tested:
    return [f'{evaluation} --config.report.split={config.tested}{where}']
  of = f'--workdir runs/{full.replace("/", "-")} --config.{key}.name={full}{where}'
  file, _, variant = training.partition(':')
  if not built.FOR_ACCELERATOR:
    return [f'next: car-jax train --config configs/{file}.py{variant and ":" + variant} {of}']
  from car_jax.data import opening  # imports jax

  dataset = opening.open_dataset({'name': full, 'data_dir': str(data_dir)})
  splits = {k: source for k in base.SPLITS if (source := split(dataset, k)) is not None}
  if 'train' not in splits:
    return [f'{evaluation} --config.report.split={[*splits][-1]}{where}']
  small = 'car' if dataset.info.readers > 1 else 'deterministic'
  changes = fitted(splits)
  changed = ''.join(f' --config.{k}={v}' for k, v in changes.items())
  net = f'configs/demo.py:{small} is a small net, minutes on a laptop'
  return [
    f'{net}; configs/{file}.py has the published sizes, for an accelerator',
    f'next: car-jax train --config configs/demo.py:{small} {of}{changed}',
  ]


def split(dataset: sources.Dataset, name: str) -> Any:
  """A split's records; None where it has none."""
  try:
    return dataset.split(name)
  except UserError:
    return None


def fitted(splits: Mapping[str, Any]) -> dict[str, Any]:
  """What changes in configs/demo.py for data of any size, of which `train` is there."""
  of = {name: sizes(source) for name, source in splits.items()}
  every = [shape for shapes in of.values() for shape in shapes]
  train = of['train'] or [(LARGEST, LARGEST)]
  least = min(map(min, train))
  side = max(MULTIPLE, min(LARGEST, least // MULTIPLE * MULTIPLE))
  batch = next(n for n in BATCHES if n <= len(splits['train']))
  changes: dict[str, Any] = {'data.size': side, 'data.batch': batch, 'data.eval_batch': batch}
  if least < side:
    changes['data.pad'] = True
  if max(map(max, train)) > side:
    changes['data.crop'] = 'random'
  if any(h * w > LARGE for h, w in every) and min(map(min, every)) >= CENTRE:
    changes['data.eval_size'] = CENTRE
  known = 'validation' in splits
  changes |= {'evals.val.split': 'validation'} if known else {'evals': '{}', 'best': ''}
  return changes | {'report.split': [*splits][-1]}


def sizes(source: sources.Source) -> list[tuple[int, int]]:
  """(H, W) of all images; none of a split that is too large to look it up."""
  return [] if source.num_bytes > MOST_BYTES else source.sizes
