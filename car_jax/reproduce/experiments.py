"""Which experiments there are: data with the published counts, trainings, weights.

All that is published of their scores is in the configs (published.py).
"""

import dataclasses
from collections.abc import Mapping

from car_jax.errors import UserError, nearest

TORCHVISION = 'https://download.pytorch.org/models/'


@dataclasses.dataclass(frozen=True)
class Source:
  """What a user has, and what is prepared of it.

  counts: numbers of examples that are published, by split, or by splits joined by + of which the
  sum alone is; any one of several may be met. shape: (H, W, channels) of the prepared images.
  """

  data: str
  options: tuple[str, ...] = ()
  counts: tuple[Mapping[str, int], ...] = ()
  cite: str = ''
  shape: tuple[int, int, int] = (1, 1, 3)
  black_box: bool = False


@dataclasses.dataclass(frozen=True)
class Start:
  """ImageNet's weights as torchvision publishes them, for a `part` of the state that trains."""

  part: str
  file: str
  config: str


@dataclasses.dataclass(frozen=True)
class Training:
  """after: the training whose net this one begins with, and by whose finds it draws images."""

  name: str
  config: str
  start: Start | None = None
  after: str = ''


@dataclasses.dataclass(frozen=True)
class Experiment:
  """One that trains, or with a `study` one of models that others trained.

  sources: in the order of --source. importer: of the authors' weights, for the last training.
  """

  about: str
  sources: tuple[Source, ...]
  trainings: tuple[Training, ...] = ()
  importer: str = ''
  study: str = ''

  @property
  def start(self) -> Start | None:
    return next((t.start for t in self.trainings if t.start), None)


LIDC_V1 = Source(
  'lidc_v1',
  counts=({'train+validation+test': 15_096},),
  cite='slices of the pickle that ports of the Probabilistic U-Net share',
  shape=(128, 128, 1),
)
LIDC_V2 = Source(
  'lidc_crops',
  counts=(
    {'train': 8_843, 'validation': 1_993, 'test': 1_980},
    {'train': 8_882, 'validation': 1_996, 'test': 1_992},
  ),
  cite='the public archives, or those of arXiv 2006.13144',
  shape=(180, 180, 1),
)
OFFICIAL = 'the official images; Cordts et al., CVPR 2016'
FLIPPED = Source(
  'cityscapes',
  counts=({'train': 2_701, 'validation': 274, 'test': 500},),
  cite=OFFICIAL,
  shape=(256, 512, 3),
  black_box=True,
)
ADAPTED = Source(
  'cityscapes',
  ('--scale', '1', '--splits', 'adaptation'),
  counts=({'train': 2_975, 'val2': 500, 'validation': 500},),
  cite=OFFICIAL,
  shape=(1024, 2048, 3),
)
RELIABLE = Source(
  'cityscapes',
  ('--scale', '1', '--splits', 'reliability'),
  counts=({'test': 267, 'calibration': 233},),
  cite=f'{OFFICIAL}; cut as in arXiv 2303.11298',
)
GTA5 = Source(
  'gta5',
  counts=({'train': 9_000, 'validation': 1_000},),
  cite='frames 1 to 10,000; arXiv 2105.00097',
  shape=(1052, 1914, 3),
)
SYNTHIA = Source(
  'synthia',
  counts=({'train': 9_400, 'validation': 400},),
  cite='RAND_CITYSCAPES; Ros et al., CVPR 2016',
  shape=(760, 1280, 3),
)
ACDC = Source(
  'acdc',
  ('--scale', '1'),
  counts=(
    {f'{k}_test': 400 for k in ('fog', 'night', 'rain', 'snow')}
    | {'fog_calibration': 100, 'night_calibration': 106}
    | {'rain_calibration': 100, 'snow_calibration': 100},
  ),
  cite='training and validation images; arXiv 2104.13395',
)
IDD = Source(
  'idd',
  ('--scale', '1', '--unknown', '8,16,17,23'),
  counts=({'train+test': 6_993, 'calibration': 981},),
  cite='training and validation images; arXiv 1811.10200',
)


def _sac(source: Source, net: str) -> Experiment:
  """DA-SAC's two stages."""
  config = f'configs/sac_{source.data}.py:{net}'
  file = 'resnet101-5d3b4d8f.pth' if net == 'resnet101' else 'vgg16_bn-6c64b313.pth'
  base = Training('base', f'{config}_base', Start('net', file, f'{config}_base'))
  trainings = (base, Training('sac', config, after='base'))
  about = f'DA-SAC from {source.data} to Cityscapes, {net} (arXiv 2105.00097)'
  return Experiment(about, (source, ADAPTED), trainings, 'sac')


def _single(
  about: str, source: Source, config: str, importer: str, start: Start | None = None
) -> Experiment:
  return Experiment(about, (source,), (Training('train', config, start),), importer)


NETS = ('resnet101', 'vgg16', 'fcn8s')
EXPERIMENTS = {
  'lidc-mose': _single(
    'MoSE on LIDC v1, four readers (ICLR 2023)', LIDC_V1, 'configs/mose_lidc.py', 'mose'
  ),
  'lidc-car': _single(
    'CAR on LIDC v2, four readers (arXiv 2006.13144)',
    LIDC_V2,
    'configs/car_lidc.py',
    'car',
    Start('calnet', 'vgg19_bn-c79401a0.pth', 'configs/car_lidc.py:calnet'),
  ),
  'cityscapes-mose': _single(
    'MoSE on Cityscapes with random class flips (ICLR 2023)',
    FLIPPED,
    'configs/mose_cityscapes.py',
    'mose',
  ),
  'cityscapes-car': _single(
    'CAR on Cityscapes with random class flips (arXiv 2006.13144)',
    FLIPPED,
    'configs/car_cityscapes.py',
    'car',
  ),
  'gta5-sac': _sac(GTA5, NETS[0]),
  'synthia-sac': _sac(SYNTHIA, NETS[0]),
  'relis': Experiment(
    '27 segmenters in bad weather and in India (arXiv 2303.11298)',
    (RELIABLE, ACDC, IDD),
    study='configs/relis.py',
  ),
  'genval': Experiment(
    '42 segmenters on generated and real shift (arXiv 2312.09231)',
    (RELIABLE, ACDC, Source('generated_scenes', cite='arXiv 2312.09231')),
    study='configs/genval.py',
  ),
}
"""By names of the command. DA-SAC is of resnet101; gta5-sac:vgg16 is of another net."""


def find(name: str) -> Experiment:
  """Raises UserError."""
  bare, _, net = name.partition(':')
  if bare not in EXPERIMENTS:
    raise UserError(f'no experiment {bare!r}\n{nearest(bare, EXPERIMENTS)}')
  if not net:
    return EXPERIMENTS[bare]
  if not bare.endswith('-sac') or net not in NETS:
    nets = NETS if bare.endswith('-sac') else ()
    raise UserError(f'{bare} has no variant {net!r}\n{nearest(net, nets)}')
  return _sac(EXPERIMENTS[bare].sources[0], net)
