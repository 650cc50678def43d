"""From config.data to a data set: the one place that knows all kinds of them."""

import dataclasses
from collections.abc import Callable
from typing import Any

from car_jax.data import adaptation, class_flips
from car_jax.data import options as data_options
from car_jax.data.sources import Dataset
from car_jax.errors import UserError

# Beside a source: how images are cut is said of source and target.
UNREAD: tuple[str, ...] = ('size', 'pad', 'crop', 'mirror', 'rot90', 'mirror_rows', 'rotate')
UNREAD += ('scales', 'transforms')


def open_dataset(
  config: Any, records: Callable[[data_options.Data], Dataset] | None = None
) -> Dataset:
  """config.data, as a dict or as options -> the data set. Raises UserError: unknown key or name, a
  value that cannot be, not prepared.

  records: gives what lies there, in place of the files.
  """
  data = data_options.of(config)
  records = records or (lambda data: data.records())
  dataset = records(data)
  if data.class_flips:
    dataset = class_flips.flipped(dataset, data.class_flips)
  if data.source is None:
    return dataset
  plain = {f.name: f.default for f in dataclasses.fields(data_options.Data)}
  own = ('size',) if data.name == 'fake' else ()
  if unread := [k for k in UNREAD if getattr(data, k) != plain[k] and k not in own]:
    raise UserError(
      f'config.data.{unread[0]} is not read beside config.data.source\n'
      '  say how images are cut in config.data.source and config.data.target'
    )
  return adaptation.two_domains(data, dataset, lambda: records(_source(data)))


def _source(data: data_options.Data) -> data_options.Data:
  source = data.source
  assert source is not None
  given = dict(name=source.name, data_dir=source.data_dir or data.data_dir)
  more = {k: getattr(source, k) for k in ('count', 'num_classes')}
  return data_options.of(given | {k: v for k, v in more.items() if v is not None})
