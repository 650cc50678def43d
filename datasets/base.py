"""What all builders share: TFDS builders of segmentation data with one or more readers' labels.

A builder lists its variants as configs, says what is in the records without a file at hand, takes
the files from the download config's manual_dir, and writes ArrayRecord, which needs no TensorFlow.
The records are those that car_jax/data/sources.py reads.
"""

import collections
import dataclasses
import itertools
import pathlib
import re
import shutil
from collections.abc import Collection, Iterator
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import tensorflow_datasets as tfds

from car_jax import options, stopping
from car_jax import progress as lines
from car_jax.data import prepared
from car_jax.datasets import fingerprint
from car_jax.datasets.options import refused
from car_jax.errors import UserError
from car_jax.options import Range
from car_jax.problems import Problems

Example = tuple[Any, ...]  # id, group, image [H, W, 1 or 3], labels [M, H, W], black box [H, W]
Scale = Annotated[float, Range(0.001, 1.0)]
SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
  """A variant of a data set. Subclasses add its options; `default` has the default of each.

  The name is made of the options that differ from their defaults, such as size64-noise2, where
  none is given. Raises UserError for a value that an option cannot have.
  """

  name: str = ''
  version: str = '1.0.0'
  UNREAD: ClassVar[tuple[str, ...]] = options.keys_but(tfds.core.BuilderConfig)  # no options
  UNNAMED: ClassVar[tuple[str, ...]] = ()  # options that are no part of the name

  def __post_init__(self) -> None:
    for key, option in self.options().items():
      value = getattr(self, key)
      try:
        setattr(self, key, options.checked(key, option.type, value))
      except UserError:
        raise refused(key, value, option) from None
    self.check()
    self.name = self.name or self.default_name()

  def check(self) -> None:
    """Raises UserError for options that do not go together; each is in its range already."""

  def default_name(self) -> str:
    known = self.options()
    changed = {k: v for k, v in self.values().items() if v != known[k].default}
    text = lambda v: '_' + v.replace(' ', '').replace(',', '+') if isinstance(v, str) else f'{v:g}'
    named = (f'{k}{text(v)}' for k, v in changed.items() if k not in self.UNNAMED)
    return '-'.join(named) or 'default'

  @classmethod
  def options(cls) -> dict[str, options.Option]:
    return options.declared(cls)  # type: ignore[arg-type]

  def values(self) -> dict[str, Any]:
    return {key: getattr(self, key) for key in self.options()}

  @property
  def tested(self) -> str:
    """The only split there is, of data that nothing is trained on; '' else."""
    return ''

  def for_source(self, source: pathlib.Path) -> Self:
    """With what the command line leaves open and the source decides. Raises UserError."""
    if source.is_file():
      raise UserError(f'{source} is a file; expected a folder')
    return self


@dataclasses.dataclass
class ScaledConfig(Config):
  scale: Scale = 1.0
  """Share of their size that images are stored at."""


@dataclasses.dataclass
class FileConfig(Config):
  """Of a source that may be one file of the manual_dir, called `file`."""

  file: str = ''
  UNREAD: ClassVar[tuple[str, ...]] = (*Config.UNREAD, 'file')

  def for_source(self, source: pathlib.Path) -> Self:
    return dataclasses.replace(self, file=source.name) if source.is_file() else self


@dataclasses.dataclass(frozen=True)
class About:
  """What is known of a variant before its files are read.

  readers is the largest number of them for one image, 0 where the source says it. unknown_label
  marks objects of no known class in the records' labels; by_object: ids are OBJECT/NAME. groups
  and range: as in sources.DataInfo.
  """

  class_names: tuple[str, ...]
  readers: int
  palette: tuple[tuple[int, int, int], ...] = ((0, 0, 0), (230, 159, 0))
  ignore_label: int | None = None
  unknown_label: int | None = None
  by_object: bool = False
  groups: str = 'groups'
  black_box: bool = False  # examples have a fifth part
  range: str = ''
  licence: str = ''
  citation: str = ''


def check_variant(name: str) -> None:
  """Raises UserError for what no prepared data set can be called."""
  if not re.fullmatch(r'([A-Za-z][\w-]{,99})?', name, re.ASCII):
    raise UserError(
      f'--variant cannot be {name!r}\n'
      '  expected a name of up to 100 letters, digits, - and _, beginning with a letter'
    )


class Metadata(tfds.core.MetadataDict):
  """What metadata.json holds, with its checksum."""

  def save_metadata(self, data_dir: Any) -> None:
    self['checksum'] = prepared.checksum(self)
    super().save_metadata(data_dir)


class LocalInfo(tfds.core.DatasetInfo):
  """Of data that are prepared on this machine: TFDS's bucket of public data sets has none of it."""

  def initialize_from_bucket(self) -> None:
    """Asks nobody; TFDS's leaves an empty folder among the temporary ones each time."""


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
  """A segmentation data set. Subclasses say what is known of it and what is in a source.

  What is wrong with a source is collected in `problems`, and nothing is prepared then.
  """

  ABOUT: About
  HOMEPAGE = ''
  TRAINING = 'car_lidc'  # of the files in configs/, one to begin with
  FOR_ACCELERATOR = False  # whether that is no training for a laptop, and configs/demo.py fits

  def __init__(self, *, file_format: Any = None, **kwargs: Any):
    super().__init__(file_format=file_format or tfds.core.FileFormat.ARRAY_RECORD, **kwargs)

  def about(self) -> About:
    """Of the config; ABOUT where all configs have the same."""
    return self.ABOUT

  def splits(self, source: pathlib.Path | None) -> dict[str, Collection[Any]]:
    """Split -> what its examples are made of, an item each; those without any are left out.

    source: the manual_dir, None for data that need none. Raises UserError for another layout.
    """
    raise NotImplementedError

  def example(self, item: Any) -> Iterator[Example]:
    """The example that is made of an item; none where a file is bad, which is a problem."""
    raise NotImplementedError

  def _create_builder_config(self, builder_config: Any, version: Any) -> Config:
    """As TFDS, but a config of one's own may have the name of a listed one: see UNNAMED."""
    if isinstance(builder_config, Config):
      return builder_config
    return super()._create_builder_config(builder_config, version)

  def _info(self) -> tfds.core.DatasetInfo:
    about = self.about()
    tensor = lambda axes=3: tfds.features.Tensor(
      shape=(None,) * axes, dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
    )
    text = tfds.features.Text
    features = {'image': tensor(), 'labels': tensor(), 'id': text(), 'group': text()}
    features |= {'black_box': tensor(2)} if about.black_box else {}
    palette = [[*colour] for colour in about.palette]
    listed = {'class_names': [*about.class_names], 'palette': palette}
    return LocalInfo(
      builder=self,
      description=(type(self).__doc__ or '').strip(),
      homepage=self.HOMEPAGE,
      citation=about.citation,
      features=tfds.features.FeaturesDict(features),
      metadata=Metadata(vars(about) | listed | {'options': self.builder_config.values()}),
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    source = None
    if self.MANUAL_DOWNLOAD_INSTRUCTIONS:
      try:
        source = pathlib.Path(dl_manager.manual_dir)
      except AssertionError as e:  # it is not there, or empty
        raise UserError(str(e)) from None
    return {s: self._generate_examples(s) for s in self.listed(source)}

  def listed(self, source: pathlib.Path | None) -> dict[str, int]:
    """Split -> how many examples the files of a source make; they are not read yet. UserError."""
    self.problems, self.fingerprint = Problems(), fingerprint.Fingerprint()
    self.source: Any = source  # a path, of data that have files
    self.items = {s: items for s, items in self.splits(source).items() if len(items)}
    return {split: len(items) for split, items in self.items.items()}

  def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    empty = True
    for item in progress(self.items.pop(split), f'{self.name} {split}'):
      for name, group, *arrays in self.example(item):
        kinds = zip(('image', 'labels', 'black_box'), arrays, strict=False)
        record = {kind: np.ascontiguousarray(array) for kind, array in kinds}
        if any('\ud800' <= c <= '\udfff' for c in name + group):
          self.problems.add(ascii(name), 'is not called in UTF-8; rename it')
          continue
        if twin := self.fingerprint.add(split, name, record['image'], record['labels']):
          self.same_pixels(f'{split}/{name}', twin)
        yield name, record | {'id': name, 'group': group}
        empty = False
    if empty:  # the writer takes no empty split: see the others' problems, then stop
      for item in itertools.chain(*self.items.values()):
        collections.deque(self.example(item), maxlen=0)
      if not self.problems.lines:
        self.problems.add(f'split {split}', 'has no example')
      self.problems.stop_if_any(self.source)

  def download_and_prepare(self, **kwargs: Any) -> None:
    """As TFDS, whose note of the default config goes with a preparation that fails."""
    try:
      super().download_and_prepare(**kwargs)
    except BaseException:
      home = self.data_path.parent.parent
      if not any(home.glob('*/*/dataset_info.json')):
        shutil.rmtree(home / '.config', ignore_errors=True)
      raise

  def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
    super()._download_and_prepare(*args, **kwargs)
    self.problems.stop_if_any(self.source)

  def _post_download_and_prepare_hook(self) -> None:
    print('\n'.join(self.report()))

  def report(self) -> list[str]:
    """What was prepared and what was left out, line by line."""
    about, notes = self.about(), self.problems.noted()
    return [
      *self.fingerprint.lines(about.class_names, about.ignore_label, about.unknown_label),
      *(['left out or changed:', *notes] if notes else []),
    ]

  def same_pixels(self, example: str, first: str) -> None:
    """Two splits have the same pixels under two names; published data may."""
    self.problems.note(example, f'WARNING: the same pixels as an example of {first.split("/")[0]}')


def progress(items: Collection[Any], what: str) -> Iterator[Any]:
  """The same items, with a line of rate and ETA on stderr."""
  done = lines.line(len(items), title=what)
  for item in items:
    stopping.check()
    yield item
    done(1)
