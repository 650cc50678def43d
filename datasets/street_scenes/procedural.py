"""car-jax generate procedural style|ood --out DIR: generated sets without any weights.

style repaints scenes in fog, at night, in rain or in snow; ood puts a boulder, a crate, a ball or a
deer into them, with the exact mask. The scenes are drawn, or photographs of yours with their label
ids (--source). They stand in for those of a diffusion model, laid out alike: see docs/generate.md.
"""

import argparse
import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np

from car_jax import errors, paths, stopping
from car_jax.data import labels
from car_jax.datasets import base, common, layout, options, prepare
from car_jax.datasets.cityscapes import cityscapes_dataset_builder as cityscapes
from car_jax.datasets.street_scenes import pasted, photographs, scenes
from car_jax.datasets.street_scenes import street_scenes_dataset_builder as builder
from car_jax.errors import UserError, exit_on_user_error, nearest
from car_jax.generate import boxes, records, sets
from car_jax.options import Range, Share, declared

WEATHERS = ('fog', 'night', 'rain', 'snow')
SCENE, WEATHER, BOX, OBJECT = range(21, 25)  # a random stream for each
MOST = 2**31 - 1


@dataclasses.dataclass
class Options(base.Config):
  start: Annotated[int, Range(0, MOST)] = 0
  """First index of each domain or object."""
  stop: Annotated[int, Range(1, MOST)] = 16
  """One more than the last index."""
  seed: Annotated[int, Range(0, 2**63 - 1)] = 0
  """Other images."""
  height: Annotated[int, Range(32, 1024)] = 128
  """Rows of a drawn scene, an even number."""
  scenes: Annotated[int, Range(1, 10**6)] = 1000
  """Drawn scenes to choose from, with replacement."""
  source: str = ''
  """Folder of photographs and label ids laid out as Cityscapes; those of val are chosen from."""

  def check(self):
    builder.Config(height=self.height)
    if self.stop <= self.start:
      raise UserError(f'--stop {self.stop} must be more than --start {self.start}')


@dataclasses.dataclass
class StyleOptions(Options):
  domains: str = ','.join(WEATHERS)
  """Weathers, joined by commas."""
  strength: Share = 1.0
  """Of the weather."""

  def check(self):
    super().check()
    chosen(self.domains, WEATHERS, 'domain')


@dataclasses.dataclass
class ObjectOptions(Options):
  objects: str = ','.join(pasted.OBJECTS)
  """Objects, joined by commas."""

  def check(self):
    super().check()
    chosen(self.objects, tuple(pasted.OBJECTS), 'object')


def chosen(text: str, known: Sequence[str], what: str) -> list[str]:
  """The names in the text. Raises UserError for one that is not known."""
  names = [*dict.fromkeys(part.strip() for part in text.split(','))]
  if wrong := [name for name in names if name not in known]:
    raise UserError(f'no {what} {wrong[0]!r}\n{nearest(wrong[0], known)}')
  return names


@dataclasses.dataclass(frozen=True)
class Drawn:
  """Scenes of the test split of street_scenes, of any number."""

  seed: int
  height: int
  count: int

  def __len__(self) -> int:
    return self.count

  def settings(self) -> dict[str, Any]:
    return dict(source='street_scenes', height=self.height, scenes=self.count)

  def scene(self, k: int) -> tuple[str, np.ndarray, np.ndarray]:
    """CITY/NAME, the image and its label ids."""
    image, ids, _ = self._render(k, 'clear', 0.0)
    return '/'.join(builder.name('test', k)), image, ids

  def weathered(self, k: int, domain: str, strength: float, rng: np.random.Generator) -> np.ndarray:
    return self._render(k, domain, strength, rng)[0]

  def _render(self, k, domain, strength, rng=None) -> scenes.Scene:
    how = dict(height=self.height, domain=domain, strength=strength, weather_rng=rng)
    return scenes.render(self.seed, builder.SPLITS['test'][2] + k, **how)


class Photographs:
  """Images and label ids of a folder that is laid out as Cityscapes. Raises UserError."""

  def __init__(self, folder: pathlib.Path):
    self._folder, self._problems = folder, common.Problems()
    parts = folder / cityscapes.IMAGES / 'val', folder / cityscapes.LABELS / 'val'
    self._paths = layout.paired(
      *parts,
      cityscapes.ENDS,
      (cityscapes.LABEL_IDS,),
      self._problems,
      scene='CITY',
      beside=(*cityscapes.COMPANIONS, cityscapes.TRAIN_IDS),
    )
    self._problems.stop_if_any(folder)
    if not self._paths:
      raise UserError(f'{parts[0]} holds no CITY/NAME{cityscapes.ENDS[0]}')

  def __len__(self) -> int:
    return len(self._paths)

  def settings(self) -> dict[str, Any]:
    """Recognises the scenes by their names, wherever they lie."""
    names = [self._name(k) for k in range(len(self))]
    mark = hashlib.sha256('\n'.join(names).encode(errors='surrogateescape')).hexdigest()[:16]
    return dict(source='photographs', scenes=len(self), names=mark)

  def _name(self, k: int) -> str:
    return '/'.join(layout.key(self._paths[k], cityscapes.ENDS))

  def scene(self, k: int) -> tuple[str, np.ndarray, np.ndarray]:
    """CITY/NAME, the image and its label ids. Raises UserError for files that cannot be used."""
    path, problems = self._paths[k], self._problems
    label = self._folder / cityscapes.LABELS / 'val' / f'{self._name(k)}{cityscapes.LABEL_IDS}'
    image, ids = common.read_image(path, problems, colour=True), common.read_ids(label, problems)
    if ids is not None and (wrong := labels.strange(ids, labels.CITYSCAPES_IDS)):
      problems.add(label, wrong)
    if image is not None and ids is not None and common.fits(path, image, [(label, ids)], problems):
      problems.stop_if_any(self._folder)
      return self._name(k), image, ids
    problems.stop_if_any(self._folder)
    raise UserError(f'{path} cannot be used')

  def weathered(self, k: int, domain: str, strength: float, rng: np.random.Generator) -> np.ndarray:
    _, image, ids = self.scene(k)
    return photographs.weathered(image, ids, domain, strength, rng)


Source = Drawn | Photographs


def source_of(config: Options) -> Source:
  if config.source:
    return Photographs(pathlib.Path(config.source))
  return Drawn(config.seed, config.height, config.scenes)


def stream(config: Options, index: int, use: int) -> np.random.Generator:
  return np.random.default_rng([config.seed, index, use])


def place(config: Options, source: Source, index: int) -> int:
  """Which scene an index is of: any, with replacement."""
  return int(stream(config, index, SCENE).integers(len(source)))


def style(config: StyleOptions, source: Source, index: int, domain: str) -> records.StyleImage:
  k = place(config, source, index)
  name, image, ids = source.scene(k)
  rng = stream(config, index, WEATHER)
  made = source.weathered(k, domain, config.strength, rng)
  return records.StyleImage(name, made, ids, image)


def ood(config: ObjectOptions, source: Source, index: int, name: str) -> records.ObjectImage:
  """GenVal's box, a fourth to half of the scene's height, which at 1024 rows is 256 to 512."""
  scene, image, ids = source.scene(place(config, source, index))
  height, width = ids.shape
  sizes = max(2, height // 4), max(2, height // 2)
  box = boxes.draw(stream(config, index, BOX), height, width, sizes)
  made, mask = pasted.pasted(image, box, name, stream(config, index, OBJECT))
  return records.ObjectImage(scene, made, ids, box, 'exact', mask)


KINDS: dict[str, tuple[type[Options], Callable[..., Any], Callable[[Any], Any]]] = {
  'style': (StyleOptions, style, lambda c: (chosen(c.domains, WEATHERS, ''), c.strength)),
  'ood': (ObjectOptions, ood, lambda c: (chosen(c.objects, tuple(pasted.OBJECTS), ''), None)),
}


def generate(out: pathlib.Path, kind: records.Kind, config: Options) -> list[sets.Item]:
  """Makes what is missing of the set -> what is there now. Raises UserError."""
  _, make, wanted = KINDS[kind]
  groups, strength = wanted(config)
  source = source_of(config)
  settings = source.settings() | ({} if strength is None else dict(strength=strength))
  writer = records.Writer(
    *(out, kind),
    generator='procedural',
    seed=config.seed,
    settings=settings,
    groups={g: {} for g in groups},
  )
  indices = range(config.start, config.stop)
  left = {g: {*writer.missing(g, indices)} for g in groups}
  todo = [(i, g) for i in indices for g in groups if i in left[g]]
  for index, group in base.progress(todo, f'{kind}, {", ".join(groups)}'):
    writer.add(group, index, make(config, source, index, group))
  return sets.write_index(out)


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, Options]:
  """Raises UserError for an option that there is not, and for a value that it cannot have."""
  module = 'generate procedural'
  kind = next((a for a in arguments if a in KINDS), '')
  if not kind:
    parser = errors.parser(f'{module} style|ood', __doc__)
    if {'-h', '--help'} & {*arguments}:
      parser.parse_args(['--help'])
    wanted = next((a for a in arguments if not a.startswith('-')), '')
    raise UserError(f'procedural makes no {wanted!r}\n{nearest(wanted, KINDS)}')
  rest = [*arguments]
  rest.remove(kind)
  parser = errors.parser(f'{module} {kind}', __doc__)
  parser.add_argument('--out', type=paths.local, required=True, help='folder of the set')
  built = argparse.Namespace(builder_config_cls=KINDS[kind][0])
  prepare.add_options(parser, built)
  args, unknown = parser.parse_known_args(rest)
  for text in unknown:
    key = text[2:].partition('=')[0]
    known = [options.flag(k)[2:] for k in (*declared(built.builder_config_cls), 'out')]
    end = f'\n{nearest(key, known)}' if text.startswith('--') else ''
    raise UserError(f'{text!r} belongs to no option{end}\n  all: {parser.prog} --help')
  args.kind = kind
  return args, prepare.config_of(built, args)


@exit_on_user_error
def main(arguments: Sequence[str]) -> int:
  args, config = parse(arguments)
  with stopping.listening():
    items = generate(args.out, args.kind, config)
  print('\n'.join(sets.acceptance(i for i in items if i.kind == args.kind)))
  print(f'{args.out / records.INDEX}\nnext: car-jax generate look {args.out}')
  return 0
