"""What the config of a study may say."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from ml_collections import ConfigDict

from car_jax import config as configs
from car_jax.data import labels
from car_jax.errors import UserError, naming
from car_jax.options import Group, Range, Share
from car_jax.published import Score
from car_jax.reliability.guarantees import DEFAULT, Guarantee

MOST_SAMPLES = 100_000
Samples = Annotated[int, Range(1, MOST_SAMPLES)]
Pixels = Annotated[int, Range(0, 10**9)]


@dataclasses.dataclass(frozen=True)
class Published(Group):
  """Where the weights of a model come from, and what is published of it."""

  files: tuple[str, ...] = ()
  """Names of the file of weights, * for anything, the surest first."""
  importer: Literal['mmseg', 'huggingface', 'detectron2'] = 'mmseg'
  """Whose format it has."""
  config: str = ''
  """Its run's config, for a file that does not say itself what it holds."""
  scores: dict[str, Score] = dataclasses.field(default_factory=dict)
  """What is published of them, by names of your own."""
  parameters: float = 0.0
  """Millions, without heads of training alone."""


@dataclasses.dataclass(frozen=True)
class Model(Group):
  """config.models.NAME: a run of ours, or a folder of anybody's predictions."""

  path: str
  """The folder, of a run or of runs seed0, seed1, ..; {set} in it stands for the name of a set;
  or zoo:NAME, hf://OWNER/NAME."""
  step: str | int = ''
  """Of a run: best, latest or a number."""
  predictor: str = ''
  """Of a run: which of its predictors; empty for its logits, or else the first."""
  samples: Samples = 16
  """Samples of each image, where the predictor draws them."""
  chunk: Samples = 16
  """Samples predicted at a time."""
  about: str = ''
  """What the page says of it."""
  published: Published | None = None
  """Of whose weights the run is."""
  name: str = ''

  SHORT, UNREAD = 'path', ('name',)


@dataclasses.dataclass(frozen=True)
class ImageSet(Group):
  """config.sets.NAME: labelled images, and how far they are from those of training."""

  data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  """Keys of config.data that differ from a run's own."""
  split: str = ''
  """The split; empty for test."""
  labels: str = ''
  """Labels of predictions made elsewhere: a folder of PNGs, or a CSV of pairs."""
  role: Literal['in-domain', 'shifted'] = 'shifted'
  """Whether images are as in training."""
  condition: str = ''
  """What they have in common with sets of another shift, such as fog; empty for the name."""
  shift: Share | None = None
  """How strong the condition is, from 0 (none) to 1 (strongest)."""
  absent: tuple[str, ...] = ()
  """Names of classes that the labels do not have."""
  by_object: bool = False
  """Images are called OBJECT/NAME: each unknown object has scores of its own. Of generated_objects
  it is known."""
  about: str = ''
  """What the page says of it."""
  name: str = ''

  UNREAD = ('name',)


@dataclasses.dataclass(frozen=True)
class CalibrationSet(ImageSet):
  """config.calibrate_on: labelled images of its own, or one of the sets by its name."""

  set: str = ''
  """Name of one of the sets, which stands for all other keys."""

  SHORT = 'set'


@dataclasses.dataclass(frozen=True)
class Correlation(Group):
  """config.correlations.NAME: does a score on some sets predict, over models, that on others?"""

  synthetic: tuple[str, ...] = ()
  """Sets or pools of generated images."""
  real: tuple[str, ...] = ()
  """Sets or pools whose scores they are to predict."""
  measures: tuple[str, ...] = ('miou', 'ece', 'unknown_auroc')
  """The scores; see docs/reliability.md."""


DEFAULT_MEASURES = (
  *('miou', 'pixel_accuracy', 'ece', 'adaptive_ece', 'ks', 'mce', 'nll', 'brier'),
  *('auroc', 'auroc[entropy]', 'aupr_error', 'fpr95', 'prr', 'aurc', 'auroc[disagreement]'),
  *('unknown_auroc', 'unknown_auroc[entropy]', 'unknown_auroc[max_logit]', 'unknown_auroc[energy]'),
  *('unknown_ap', 'unknown_fpr95', 'image_aurc', 'image_augrc'),
)


@dataclasses.dataclass(frozen=True)
class StudyOptions(Group):
  """Everything that a study's config may say."""

  title: str = ''
  """Heading of the page; empty for its models and sets."""
  models: dict[str, Model] = dataclasses.field(default_factory=dict)
  """What is studied, by names of your own."""
  missing: Literal['error', 'skip'] = 'error'
  """skip: a model whose folder is not there is left out, and named."""
  sets: dict[str, ImageSet] = dataclasses.field(default_factory=dict)
  """The sets of images that models are scored on."""
  pools: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  """Names of sets whose images are scored together."""
  correlations: dict[str, Correlation] = dataclasses.field(default_factory=dict)
  """Pairs of sets whose scores are correlated over models."""
  calibrators: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  """Kinds of calibration, or files; {model} in it stands for the model's name."""
  calibrate_on: CalibrationSet | None = None
  """The set that calibrators are fitted to, and thresholds of guarantees chosen on; or the name of
  one of the sets."""
  calibration_pixels: Pixels = 20_000
  """Random pixels of each image that calibrators are fitted to."""
  guarantees: dict[str, Guarantee] = dataclasses.field(default_factory=lambda: {**DEFAULT})
  """What sets of classes may miss on average; the default needs calibrate_on."""
  measures: tuple[str, ...] = DEFAULT_MEASURES
  """What is measured; see docs/reliability.md."""
  sampled: Pixels = 0
  """Random pixels of each image that are scored; 0 for all."""
  exact: bool = False
  """Sort all scores instead of binning them."""
  resamples: Annotated[int, Range(0, 10**6)] = 200
  """Resamples of the images, for 95 % intervals."""
  worst: Annotated[int, Range(0, 1000)] = 3
  """Images shown for each model, of the first set and of the strongest shift."""
  classes: tuple[str, ...] = labels.CLASS_NAMES[: labels.SCORED]
  """Names of the classes of predictions made elsewhere."""
  palette: tuple[tuple[int, int, int], ...] = labels.PALETTE[: labels.SCORED]
  """Their colours."""
  kind: Literal['', 'logits', 'probabilities'] = ''
  """logits or probabilities: what arrays hold that do not say it."""
  resize: Literal['', 'bilinear'] = ''
  """bilinear: brings predictions to the size of the labels."""
  seed: Annotated[int, Range(0, 2**63 - 1)] = 0
  """Of all that is drawn."""


def defaults() -> ConfigDict:
  return configs.complete({}, StudyOptions)


def load(path: str, pairs: Any = ()) -> ConfigDict:
  """A study's config file with overrides. Raises UserError for unknown keys."""
  config = configs.read(path)
  if 'method' in config:
    raise UserError(f'{path}: this config trains; a study is such as configs/reliability.py')
  with naming(path):
    return configs.override(configs.complete(config, StudyOptions), pairs, StudyOptions)
