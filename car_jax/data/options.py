"""What config.data may say: which data set, how its images are cut and changed, how they are read.

`Data` is what all data sets share. A class of one adds its own options and `records()`; it is named
in lookup.DATASETS, or by the user as `package.module:Class`, and must be a frozen dataclass.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from ml_collections import ConfigDict

from car_jax import lookup, options
from car_jax.data.sources import Dataset
from car_jax.errors import UserError
from car_jax.options import Count, Factor, Group, Positive, Range, Scale, Share, Size

Crop = Literal['centre', 'random', 'resized', 'rescaled']


@dataclasses.dataclass(frozen=True)
class Source(Group):
  """config.data.source: labelled images of another domain, and the windows that are cut of them."""

  name: str
  """Which data set, as car-jax prepare calls it."""
  size: Size
  """Height and width of a window in pixels."""
  data_dir: str = ''
  """Folder of prepared data; empty for that of the target."""
  split: str = 'train'
  """Its split."""
  count: Positive | None = None
  """How many images the made-up data set `fake` has."""
  num_classes: Annotated[int, Range(2, 254)] | None = None
  """How many classes the made-up data set `fake` has."""
  scale: Scale = (0.5, 1.0)
  """The least and the largest factor by which an image is scaled before the cut."""
  mirror: bool = True
  """Mirror half of the windows."""
  jitter: Share = 0.0
  """Strength of random brightness, contrast, saturation and hue."""
  blur: bool = False
  """Blur half of the images."""
  renormalise: bool = True
  """Bring GTA5's colour statistics to those of Cityscapes, as published."""

  def __post_init__(self) -> None:
    _check_ranges(self, 'source', 'scale')


@dataclasses.dataclass(frozen=True)
class Target(Group):
  """config.data.target: unlabelled images, as groups of views or one by one.

  An option that is None has the value of what is made: of views, or with `views` 0 of windows like
  the source's (data/views.py).
  """

  split: str = 'train'
  """The split of images to adapt to."""
  groups: Count = 1
  """Target images in a batch; 0 for none."""
  views: Count = 4
  """Views of each image; 0 for single windows without their transforms."""
  counts: str = ''
  """A file of classes found per image, for importance sampling; see docs/adaptation.md."""
  uniform_share: Share = 0.25
  """How much of importance sampling is uniform."""
  uniform_classes: tuple[Count, ...] = ()
  """Classes whose turns draw uniformly."""
  size: Size | None = None
  """Height and width of a view in pixels."""
  scale: Scale | None = None
  """The least and the largest factor by which an image is scaled before the cut."""
  mirror: bool | None = None
  """Mirror half of the images."""
  mirror_views: bool | None = None
  """Mirror half of the views besides."""
  zoom: Scale | tuple[()] | None = None
  """The least and the largest share of the window that a view shows; () for the whole."""
  blur: Scale | tuple[()] | bool | None = None
  """The least and the largest radius in pixels, () for none; of windows True or False."""
  jitter: Share | None = None
  """Strength of random brightness, contrast, saturation and hue."""
  greyscale: Share | None = None
  """How often a view is grey."""
  renormalise: bool | None = None
  """Bring GTA5's colour statistics to those of Cityscapes; of windows only."""

  def __post_init__(self) -> None:
    _check_ranges(self, 'target', 'scale', 'zoom', 'blur')

  def look(self) -> dict[str, Any]:
    """The options of what is made, those that are given."""
    names = ('size', 'scale', 'mirror', 'mirror_views', 'zoom', 'blur', 'jitter', 'greyscale')
    values = {k: getattr(self, k) for k in (*names, 'renormalise')}
    return {k: v for k, v in values.items() if v is not None}


def _check_ranges(group: Any, where: str, *keys: str) -> None:
  """Raises UserError for a range whose ends are the wrong way round."""
  for key in keys:
    ends = getattr(group, key)
    if isinstance(ends, tuple) and ends and ends[0] > ends[1]:
      raise UserError(
        f'config.data.{where}.{key} is {ends}; the least comes first\n'
        f"  such as --config.data.{where}.{key}='{ends[::-1]}'"
      )


@dataclasses.dataclass(frozen=True)
class Data(Group):
  """What every data set can be asked for. Sides are in pixels."""

  name: str = ''
  """Which data set: as car-jax prepare calls it, `fake`, or `package.module:Class`."""
  data_dir: str = ''
  """Folder of prepared data; empty for TFDS_DATA_DIR, or else ~/tensorflow_datasets."""
  batch: Positive = 8
  """Images in a step of training, on all devices together."""
  eval_batch: Count = 0
  """Images predicted at a time; 0 for `batch`."""
  train: str = 'train'
  """The split that is trained on, such as train[:50%]; with a source, adaptation."""
  size: Count = 0
  """Side of the square that training sees of an image; 0 for whole images."""
  crop: Crop = 'centre'
  """How the square is cut: resized and rescaled take `scales`."""
  scales: tuple[Factor, ...] = ()
  """Shares of the shorter side (resized) or factors (rescaled) to draw from."""
  pad: bool = False
  """Mirror images that are smaller than `size`, without labels there."""
  mirror: bool = False
  """Mirror half of the training images left to right."""
  mirror_rows: bool = False
  """Mirror half of the training images upside down."""
  rot90: bool = False
  """Turn training images by 0 to 3 quarters."""
  rotate: Annotated[float, Range(0.0, 360.0)] = 0.0
  """Turn half of the training images by up to so many degrees."""
  transforms: tuple[Any, ...] = ()
  """More transforms of training images, in this order: names, or dict(name=.., ..) with options."""
  class_flips: str = ''
  """Random class flips, such as sidewalk:8/17,road:4/17; see docs/data.md."""
  class_flip_black_box: bool = True
  """Flip classes in the black box's prediction too, by draws of its own."""
  corruption: str = ''
  """Corrupt images, such as gaussian_noise:3; see docs/data.md."""
  eval_size: Count = 0
  """Side of the central square that evaluation sees; 0 for whole images."""
  fit: Size | tuple[()] = ()
  """Longer and shorter side that evaluation scales images into; () for none."""
  fit_multiple: Count = 0
  """Whole multiples of it that the sides of an image in `fit` are rounded up to, its shape changed
  by so much; antialiased, as transformers has it, also at 1. 0 for neither, as mmsegmentation has
  it."""
  resize: Size | tuple[()] = ()
  """Height and width that evaluation makes of any image, antialiased; () for none."""
  threads: Annotated[int, Range(0, 1024)] = 2
  """How many threads of the host read and change images."""
  workers: Annotated[int, Range(0, 1024)] = 0
  """Processes of so many threads each that do so in training, with the same batches; 0 for none."""
  source: Source | None = None
  """Labelled images of another domain, to adapt from; see docs/adaptation.md."""
  target: Target | None = None
  """Unlabelled images to adapt to, of this data set."""

  UNREAD: ClassVar[tuple[str, ...]] = ('name',)  # it chooses the class

  def records(self) -> Dataset:
    """The data set itself, as it lies there; see sources.Dataset."""
    raise NotImplementedError(f'{type(self).__name__} has no records()')


def of(config: Any) -> Data:
  """config.data, or a dict of some of its keys -> its options. Raises UserError."""
  if isinstance(config, Data):
    return config
  given = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
  if 'name' not in given:
    return Data(**options.completed(Data, given, 'data.'))
  full = options.completed_part('data set', given, 'data')
  cls = lookup.find('data set', full['name'])
  if not issubclass(cls, Data):
    raise UserError(
      f'{full["name"]} is no data set\n'
      '  it is a frozen dataclass made of car_jax.data.options.Data, with records()'
    )
  groups = {k: group(**full[k]) for k, group in GROUPS.items() if full.get(k)}
  return cls(**full | groups)


GROUPS: Mapping[str, type] = {'source': Source, 'target': Target}


def over(config: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
  """config.data with other keys, perhaps another data set, which has no options of the first's."""
  name = more.get('name', config['name'])
  known = {'name', *options.declared(lookup.find('data set', name))}
  return {k: v for k, v in config.items() if k in known} | dict(more)
