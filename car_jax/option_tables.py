"""Options as tables: of one config on the terminal, of all there are as docs/options.md.

python -m car_jax.option_tables > docs/options.md
"""

import shutil
import sys
import textwrap
from collections.abc import Mapping
from typing import Any

from car_jax import lookup, options
from car_jax.options import Option
from car_jax.report.table import table

TITLES = {
  'method': 'Methods (`method`)',
  'net': 'Nets (such as `method.model`)',
  'backbone': 'Backbones (`method.model.backbone` of a composed net)',
  'neck': 'Necks (`method.model.neck`)',
  'head': 'Heads (`method.model.head`)',
  'data set': 'Data sets (`data`)',
  'transform': 'Transforms (`data.transforms`)',
  'optimizer': 'Optimizers (such as `method.optim`)',
}


def terminal(known: Mapping[str, Option]) -> str:
  """One paragraph for each key: key=value, what it may be, what it means."""
  width = min(shutil.get_terminal_size().columns, 100)
  wrap = lambda text: textwrap.fill(text, width, initial_indent='    ', subsequent_indent='    ')
  parts = []
  for key, o in known.items():
    text = f'{o.about} ({options.words(o.type)})'.strip()
    parts.append(f'--config.{key}={shown(o.default)}\n{wrap(text)}')
  return '\n'.join(parts)


def shown(value: Any) -> str:
  """A value as one would write it behind --config.KEY=, for a shell."""
  text = value if isinstance(value, str) else repr(value)
  return text if not text or text.replace('.', '').replace('_', '').isalnum() else f"'{text}'"


def page() -> str:
  """Every option that there is, in Markdown."""
  from car_jax.data.options import Data

  lines = ['# Options', '']
  lines += textwrap.wrap(
    'Everything that a config may say, with its default. `--config.KEY=VALUE` changes one, '
    '`car-jax train --config FILE --options` lists those of a config. This page is made by '
    '`python -m car_jax.option_tables`.',
    110,
  )
  for title, cls in _groups():
    lines += ['', f'## {title}', '', *_rows(cls)]
  lines += ['', '## Scores (such as `report.metrics`)', '', *_scores()]
  common = options.declared(Data)
  for kind, title in TITLES.items():
    lines += ['', f'## {title}']
    for name in lookup.TABLES[kind]:
      cls = lookup.find(kind, name)
      rows = _rows(cls, without=common if kind == 'data set' else {})
      lines += ['', f'### {name}', '', *_summary(kind, cls)]
      lines += rows if len(rows) > 2 else ['No options of its own.']
  return '\n'.join(lines) + '\n'


def _groups() -> list[tuple[str, type]]:
  """(title, what declares its options) of all that is no part with a name of its own."""
  from car_jax.config import Run
  from car_jax.data.options import Data, Source, Target
  from car_jax.evaluate.options import Evaluation
  from car_jax.generate.options import (
    MaskOptions,
    ObjectOptions,
    RefineOptions,
    SceneOptions,
    StyleOptions,
  )
  from car_jax.published import Score
  from car_jax.reliability.guarantees import Guarantee
  from car_jax.reliability.study_options import Correlation, ImageSet, Model, StudyOptions

  return [
    ('A training run', Run),
    ('An evaluation (`evals.NAME`, `report`)', Evaluation),
    ('A published score (`published.NAME`)', Score),
    ('Every data set (`data`)', Data),
    ('The source of an adaptation (`data.source`)', Source),
    ('The target of an adaptation (`data.target`)', Target),
    ('A reliability study', StudyOptions),
    ('A model of a study (`models.NAME`)', Model),
    ('A set of a study (`sets.NAME`, `calibrate_on`)', ImageSet),
    ('A correlation of a study (`correlations.NAME`)', Correlation),
    ('A guarantee of a study (`guarantees.NAME`)', Guarantee),
    ('Generation in other domains (`car_jax.generate style`)', StyleOptions),
    ('Generation of objects (`car_jax.generate ood`)', ObjectOptions),
    ('Its second pass (`refine`)', RefineOptions),
    ('Its masks (`masks`)', MaskOptions),
    ('Scenes of both (`scenes`)', SceneOptions),
  ]


def _summary(kind: str, cls: Any) -> list[str]:
  """What a part is: the head of its file for a method or a net, which has one of its own, else the
  first paragraph of its class."""
  whole = sys.modules[cls.__module__] if kind in ('method', 'net') else cls
  head = ' '.join((whole.__doc__ or '').split('\n\n')[0].split())
  if kind == 'method' and cls.prediction_options:
    names = ', '.join(f'`{key}`' for key in cls.prediction_options)
    head += f' `car-jax eval` and `car-jax predict` take other values of {names} than the run has.'
  return [head, '']


def _rows(cls: type, without: Mapping[str, Option] = {}) -> list[str]:
  rows = []
  for key, o in options.declared(cls).items():
    if without.get(key) == o:
      continue
    default = 'required' if o.default is options.REQUIRED else f'`{_plain(o.default)!r}`'
    rows.append([f'`{key}`', default, options.words(o.type), o.about])
  return table('', ('key', 'default', 'values', 'meaning'), rows, words=range(4)).markdown()


def _scores() -> list[str]:
  from car_jax.metrics import of_borders, of_components
  from car_jax.metrics.base import BETTER
  from car_jax.metrics.image_texts import OF_IMAGES
  from car_jax.metrics.reader_texts import OF_READERS
  from car_jax.metrics.texts import ABOUT

  known = OF_READERS | ABOUT | of_borders.ABOUT | of_components.ABOUT | OF_IMAGES
  rows = [[f'`{k}`', a.title, BETTER[a.better], a.text, a.paper] for k, a in known.items()]
  columns = ('name', 'title', 'which end', 'meaning', 'paper')
  return table('', columns, rows, words=range(5)).markdown()


def _plain(value: Any) -> Any:
  return value if not isinstance(value, tuple) or len(value) < 8 else f'{value[:3]} and more'


if __name__ == '__main__':
  print(page(), end='')
