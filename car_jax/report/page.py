"""HTML pages from templates: one file each, no network, light and dark.

Their script sorts, chooses, isolates and saves; without it everything is shown.
"""

import dataclasses
import pathlib
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from car_jax import folders
from car_jax.metrics.base import BETTER
from car_jax.report import rendering, svg
from car_jax.report.figure import Figure

FOLDER = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Tile:
  """A picture with its caption. alt: for who cannot see it. kind: of the coded bytes. gap: apart
  from the one before."""

  content: bytes
  caption: str
  alt: str
  kind: str = 'image/png'
  gap: bool = False

  @property
  def uri(self) -> str:
    return rendering.data_uri(self.content, self.kind)


@dataclasses.dataclass(frozen=True)
class Strip:
  """Tiles of one name in a row; note: a few words below the name."""

  name: str
  note: str
  tiles: tuple[Tile, ...]


@dataclasses.dataclass(frozen=True)
class Card:
  """An image with what belongs to it. first: what stands before the strips. labels: what controls
  choose it by."""

  title: str
  strips: tuple[Strip, ...]
  tag: str = ''
  note: str = ''
  wide: bool = False
  first: Tile | None = None
  labels: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Select:
  """A choice of one name on an axis (model, set, ..) or of all; none for a single name.

  `chosen` is the first choice, `keep` is shown whatever is chosen, `label` the text beside it.
  """

  axis: str
  names: tuple[str, ...]
  chosen: str = '*'
  keep: str = ''
  label: str = ''

  @property
  def others(self) -> list[str]:
    return [n for n in self.names if n != self.keep]

  def __bool__(self) -> bool:
    return len(self.names) > 1


def select(axis: str, names: Iterable[Any], **how: str) -> Select:
  return Select(axis, tuple(dict.fromkeys(map(str, names))), **how)


def sentence(text: str) -> str:
  """Numbers stay with their signs."""
  return str(text).replace(' %', '\u00a0%').replace(' ± ', '\u00a0±\u00a0')


def _csv_uri(figure: Figure) -> str:
  return f'data:text/csv;charset=utf-8,{urllib.parse.quote(figure.csv(), safe=" ,:()[]/|=+")}'


def _environment() -> jinja2.Environment:
  made = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FOLDER / 'templates'),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  made.filters |= dict(slug=folders.slug, sentence=sentence, csv_uri=_csv_uri)
  made.filters['drawn'] = lambda figure: Markup(svg.svg(figure))
  made.globals |= dict(
    better=BETTER,
    css=Markup((FOLDER / 'page.css').read_text().replace('\n', '')),
    figure_css=Markup(svg.CSS),
    script=Markup((FOLDER / 'page.js').read_text()),
  )
  return made


ENVIRONMENT = _environment()


def render(template: str, **context: Any) -> str:
  """A whole document. context: what the template names, as plain values, tables, figures, tiles."""
  return ENVIRONMENT.get_template(template).render(context) + '\n'
