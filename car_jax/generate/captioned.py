"""Scenes with label ids and captions, as ControlNet is trained on them (GenVal, arXiv 2312.09231).

A batch has, beside what methods/base.py says of `example`:
  image   [B, H, W, 3] float32 in [-1, 1]
  hint    [B, H, W, K] float32 in [0, 1], the label ids as style.HINTS has them
  tokens  [B, L]       int32, the caption
Batch k is a pure function of (seed, k, host). Scenes are files, or drawn where none are named.
"""

import concurrent.futures
import dataclasses
import functools
import json
import pathlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from car_jax import files, lookup, options, pictures
from car_jax.data import labels, pipeline
from car_jax.data.options import Data
from car_jax.data.sources import DataInfo, Dataset, Stream, sliced, split_name
from car_jax.data.transforms import nearest_resized
from car_jax.errors import UserError, naming, nearest, reading
from car_jax.generate import style
from car_jax.generate import tokenizer as tokenizers
from car_jax.generate.captions import sentence, vocabulary
from car_jax.options import Count, Positive, Range, Share

IMAGES, LABELS = 'leftImg8bit', 'gtFine'
IMAGE_END, LABEL_END = '_leftImg8bit.png', '_gtFine_labelIds.png'
KEYS = ('image', 'conditioning_image', 'text')
# Split -> its first drawn scene; as car-jax prepare street_scenes numbers them.
DRAWN = {'train': 0, 'validation': 1_000_000, 'test': 2_000_000}
DOMAINS = ('clear', 'fog', 'rain', 'snow', 'night')
KEPT = 2**28  # bytes of drawn scenes that stay in memory


class Scene(NamedTuple):
  """image uint8 [H, W, 3], label ids uint8 [H, W]; caption None: to be made from the labels."""

  name: str
  image: np.ndarray
  labels: np.ndarray
  caption: str | None = None
  domain: str = ''


class Paths(NamedTuple):
  """A scene's files; `where` names it in messages."""

  where: str
  image: pathlib.Path
  labels: pathlib.Path
  caption: str | None = None


# Files -------------------------------------------------------------------------------------------


def listed(path: pathlib.Path, root: pathlib.Path) -> list[Paths]:
  """The scenes of a file of JSON lines with the keys KEYS; paths are relative to `root`.

  The labels lie beside conditioning_image, `gtFine_labelIds` in place of `leftImg8bit` in its name.
  Raises UserError, which names the line: no JSON, other keys, a file that is not there.
  """
  scenes = []
  for number, line in enumerate(files.read_text(path).splitlines(), 1):
    if not line.strip():
      continue
    where = f'{path}, line {number}'
    with reading(where, 'JSON'):
      row = json.loads(line)
    if not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in KEYS):
      has = ', '.join(map(str, row)) if isinstance(row, dict) else f'{row!r:.60}'
      raise UserError(f'{where} has {has}\n  it has the texts {", ".join(KEYS)}')
    condition = root / row[KEYS[1]]
    name = condition.name.replace('leftImg8bit', 'gtFine_labelIds')
    paths = Paths(where, root / row[KEYS[0]], condition.with_name(name), row[KEYS[2]])
    for file in (paths.image, paths.labels):
      if not file.is_file():
        raise UserError(f'{where}: no file {file}\n  paths are relative to config.data.root')
    scenes.append(paths)
  if not scenes:
    raise UserError(f'{path} lists no scene')
  return scenes


def laid_out(root: pathlib.Path, split: str) -> list[Paths]:
  """The scenes of a folder that is laid out as Cityscapes. Raises UserError: none, no labels."""
  folder = root / IMAGES / split
  if not folder.is_dir():
    there = [p.name for p in (root / IMAGES).glob('*') if p.is_dir()]
    raise UserError(f'no folder {folder}\n{nearest(split, there)}')
  scenes = []
  for image in sorted(folder.glob(f'*/*{IMAGE_END}')):
    name = image.name.removesuffix(IMAGE_END) + LABEL_END
    label = root / LABELS / split / image.parent.name / name
    if not label.is_file():
      raise UserError(f'no file {label}, the labels of {image}')
    scenes.append(Paths(str(image), image, label))
  if not scenes:
    raise UserError(f'{folder} holds no CITY/NAME{IMAGE_END}')
  return scenes


def read_labels(paths: Paths) -> np.ndarray:
  """Label ids uint8 [H, W]. Raises UserError by path: unreadable, colours, ids of no class."""
  ids = pictures.open_picture(paths.labels).values
  if ids.ndim != 2 or ids.dtype != np.uint8:
    raise UserError(f'{paths.where}: {paths.labels} is no picture of 8-bit label ids')
  if wrong := labels.strange(ids, labels.CITYSCAPES_IDS):
    raise UserError(f'{paths.where}: {paths.labels}: {wrong}')
  return ids


def check(paths: Paths) -> tuple[int, int]:
  """The labels are read whole, of the image the size alone. -> (H, W). Raises UserError."""
  try:
    shape = read_labels(paths).shape
    with reading(paths.image, 'a picture'), Image.open(paths.image) as image:
      width, height = image.size
  except UserError as e:
    text = str(e)
    raise UserError(text if text.startswith(paths.where) else f'{paths.where}: {text}') from None
  if shape != (height, width):
    sizes = f'{width}x{height}, its labels {shape[1]}x{shape[0]}'
    raise UserError(f'{paths.where}: {paths.image} is {sizes}')
  return height, width


@dataclasses.dataclass(frozen=True)
class Files:
  paths: Sequence[Paths]

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, k: int) -> Scene:
    paths = self.paths[k]
    image = pictures.open_picture(paths.image).shown
    if image.dtype != np.uint8 or image.ndim != 3:
      raise UserError(f'{paths.where}: {paths.image} is no picture of 8-bit colours')
    return Scene(paths.image.name, image, read_labels(paths), paths.caption)

  def checked(self, threads: int) -> 'Files':
    """Itself, all files looked at. Raises UserError for the first that cannot be used."""
    with concurrent.futures.ThreadPoolExecutor(max(1, threads)) as pool:
      for _ in pool.map(check, self.paths):
        pass
    return self


# Drawn -------------------------------------------------------------------------------------------


@functools.cache
def _renderer(height: int) -> Any:
  """datasets.street_scenes' render for one height, which keeps what it has drawn."""
  render = lookup.own('data set', 'car_jax.datasets.street_scenes.scenes:render')

  @functools.lru_cache(maxsize=max(1, KEPT // (8 * height**2)))
  def drawn(seed: int, index: int, domain: str) -> tuple[np.ndarray, np.ndarray]:
    scene = render(seed, index, height=height, domain=domain)
    return scene.image, scene.labels

  return drawn


@dataclasses.dataclass(frozen=True)
class Drawn:
  """Street scenes height x twice that, each in every domain."""

  seed: int
  indices: Sequence[int]
  height: int
  domains: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.indices) * len(self.domains)

  def __getitem__(self, k: int) -> Scene:
    index, domain = self.indices[k // len(self.domains)], self.domains[k % len(self.domains)]
    image, ids = _renderer(self.height)(self.seed, index, domain)
    weather = '' if domain == DOMAINS[0] else domain
    return Scene(f'{index}{weather}', image, ids, domain=weather)


# Batches -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Captioned(Data):
  """Label ids are Cityscapes' 34. Without `root` and `captions` scenes are drawn."""

  batch: Positive = 8
  """Scenes in a step of training, on all devices together."""
  size: Annotated[int, Range(8, 8192)] = 512
  """The shorter side of what is cut of a scene, resized by the nearest pixel."""
  crop: Literal['random_square', 'full'] = 'random_square'  # type: ignore[assignment]
  """The square of the shorter side at a random place, or the whole scene."""
  root: str = ''
  """Folder that paths in `captions` are relative to; without these one laid out as Cityscapes."""
  captions: str = ''
  """A file of JSON lines with image, conditioning_image, text; see docs/generate.md."""
  hint: Literal[tuple(style.HINTS)] = 'label_id'  # type: ignore[valid-type]
  """What ControlNet sees of the labels: one channel of (id + 1) / 34, or ADE20K's colours."""
  caption_dropout: Share = 0.0
  """How often a caption is empty; published 0, 0.1 serves generation with guidance."""
  tokenizer: str = ''
  """The folder of weights that has tokenizer/; empty for one of the captions' own words."""
  tokens: Annotated[int, Range(4, 1024)] = 77
  """Length of a caption in tokens, of a tokenizer of its own words."""
  count: Positive = 400
  """Drawn scenes of a split."""
  height: Annotated[int, Range(32, 1024)] = 64
  """Rows of a drawn scene; it has twice as many columns."""
  scenes_seed: Count = 0
  """Other drawn scenes."""
  domains: tuple[Literal[DOMAINS], ...] = ('clear',)  # type: ignore[valid-type]
  """Weather of drawn scenes, each of which is drawn in all; captions end in it."""

  UNREAD = options.keys_but(
    Data, 'batch', 'eval_batch', 'train', 'size', 'crop', 'threads', 'workers'
  )

  def records(self) -> Dataset:
    """Raises UserError for files that cannot be used, before the first batch."""
    return Dataset(DataInfo('captioned', 0, (), (), 0), self.split)

  def split(self, text: str) -> 'Captions':
    split = split_name(text)
    if self.captions or self.root:
      root = pathlib.Path(self.root)
      paths = listed(pathlib.Path(self.captions), root) if self.captions else laid_out(root, split)
      scenes: Any = Files(sliced(paths, text)).checked(self.threads)
    elif split not in DRAWN:
      raise UserError(f'no split {split!r} of drawn scenes\n{nearest(split, DRAWN)}')
    else:
      indices = sliced(range(DRAWN[split], DRAWN[split] + self.count), text)
      scenes = Drawn(self.scenes_seed, indices, self.height, self.domains)
    if len(scenes) < self.batch:
      raise UserError(
        f'{len(scenes)} scenes, fewer than a batch of {self.batch}\n'
        f'  use --config.data.batch={len(scenes)} or less'
      )
    return Captions(self, scenes, self.words())

  def words(self) -> tokenizers.Tokenizer:
    """The tokenizer. Raises UserError by path."""
    if self.tokenizer:
      folder = pathlib.Path(self.tokenizer)
      place = folder / 'tokenizer' if (folder / 'tokenizer').is_dir() else folder
      mend = 'name a folder of weights, or make one of a run of the method diffusion: '
      mend += 'car-jax generate export RUN --out FOLDER'
      with naming('config.data.tokenizer', mend):
        return tokenizers.read(place)
    texts = [*vocabulary(), *DOMAINS]
    if self.captions:
      texts += [
        paths.caption or ''
        for paths in listed(pathlib.Path(self.captions), pathlib.Path(self.root))
      ]
    return tokenizers.learned(texts, length=self.tokens)

  def example(self, scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, str]:
    """What is seen of a scene: pixels uint8 [h, w, 3], label ids [h, w], and the caption."""
    if self.crop == 'random_square':
      offset = int(rng.integers(style.offsets(*scene.labels.shape) + 1))
      cut = lambda x: style.square(x, offset, self.size)
    else:
      cut = functools.partial(resized, side=self.size)
    seen = cut(scene.labels)
    caption = sentence(seen) if scene.caption is None else scene.caption
    caption = f'{caption}, in {scene.domain}' if scene.domain else caption
    return cut(scene.image), seen, '' if rng.random() < self.caption_dropout else caption


def resized(x: np.ndarray, side: int) -> np.ndarray:
  """[H, W, ..] with the shorter side `side`, by the nearest pixel."""
  factor = side / min(x.shape[:2])
  return nearest_resized(x, *(round(n * factor) for n in x.shape[:2]))


@dataclasses.dataclass(frozen=True)
class Captions(Stream):
  """A training split, which makes its own batches."""

  data: Captioned
  scenes: Any
  words: tokenizers.Tokenizer

  def __len__(self) -> int:
    return len(self.scenes)

  def train_batches(
    self, *, seed: int, start_step: int = 0, host: int = 0, hosts: int = 1
  ) -> Iterator[dict[str, np.ndarray]]:
    """This host's rows of batches start_step, start_step + 1, ..."""
    import grain

    if self.data.batch % hosts:
      raise UserError(f'a batch of {self.data.batch} cannot be shared by {hosts} processes')
    steps = Steps(self, seed, start_step, host, self.data.batch // hosts)
    batches = grain.MapDataset.source(steps)
    yield from pipeline.ahead_of_use(batches, self.data.threads, self.data.workers)


@dataclasses.dataclass(frozen=True)
class Steps:
  """Step k of this host as a finished batch of `local` rows: grain's random-access source."""

  stream: Captions
  seed: int
  skip: int
  host: int
  local: int

  def __len__(self) -> int:
    return 2**40

  def __getitem__(self, k: int) -> dict[str, np.ndarray]:
    data, count = self.stream.data, len(self.stream)
    step = k + self.skip
    epoch, within = divmod(step, pipeline.steps_per_epoch(count, data.batch))
    order = pipeline.permutation(count, self.seed, epoch)
    rows = []
    for row in range(self.host * self.local, (self.host + 1) * self.local):
      rng = np.random.default_rng([self.seed, step * data.batch + row, 1])
      scene = self.stream.scenes[int(order[within * data.batch + row])]
      rows.append((scene.name, *data.example(scene, rng)))
    names, images, ids, texts = zip(*rows, strict=True)
    if len(sizes := dict(zip([x.shape for x in ids], names, strict=True))) > 1:
      (a, one), (b, other), *_ = sizes.items()
      raise UserError(
        f'scenes of one batch differ in size (rows, columns): {one} is {a}, {other} is {b}\n'
        '  use --config.data.crop=random_square'
      )
    return {
      'image': style.model_range(np.stack(images)),
      'hint': np.stack([style.HINTS[data.hint][0](x) for x in ids]),
      'tokens': self.stream.words(texts),
      'example': np.array([zlib.crc32(name.encode()) for name in names], np.uint32),
      'id': np.array(names),
    }
