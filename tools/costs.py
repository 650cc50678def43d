"""python -m tools.costs: counts what published trainings cost and writes it into docs/scaling.md.

Counted by car_jax.reproduce.costs from shapes, for one accelerator and for several; nothing is
compiled or run. What is assumed stands in the page, with these figures' sources.
"""

import dataclasses
import math
import pathlib
from collections.abc import Iterator

import jax
import numpy as np

from benchmarks import peaks
from car_jax import config as configs
from car_jax.methods.train_state import TrainState, nets
from car_jax.reproduce import costs
from car_jax.reproduce.dry import figure
from tools.check_tpu import write

PAGE = pathlib.Path(__file__).parents[1] / 'docs' / 'scaling.md'
EFFICIENCY = 0.2  # of the peak; assumed, as the page says
HOST = 5.1e6  # pixels a second that a core augments: benchmarks.feeding, 78 x 16 x 64 x 128 on two
EXCHANGE = 20e-6  # seconds that an exchange between devices takes at least; assumed


@dataclasses.dataclass(frozen=True)
class Machine:
  """By the makers' data sheets. memory: bytes of a device; links: bytes a second that it exchanges
  with others; cores: of all hosts."""

  name: str
  devices: int
  peak: peaks.Peak
  memory: float
  links: float
  cores: int

  def rate(self, n: int) -> costs.Rate:
    """Of n of the devices, at float32 as jax multiplies it."""
    flops = self.peak.flops('float32') * EFFICIENCY
    return costs.Rate(n * flops, n * self.peak.bandwidth * 1e12, '')

  def shared(self, batch: int) -> int:
    """How many devices have an equal share of a batch."""
    return max(n for n in range(1, min(self.devices, batch) + 1) if batch % n == 0)


A100 = dict(peak=peaks.NAMED['A100 80 GB'], memory=80e9, links=300e9)
H100 = dict(peak=peaks.NAMED['H100 SXM'], memory=80e9, links=450e9)
V5E = dict(peak=peaks.NAMED['TPU v5e'], memory=16e9, links=200e9)
MACHINES = (
  Machine('1 A100', 1, cores=12, **A100),
  Machine('1 H100', 1, cores=26, **H100),
  Machine('8 H100', 8, cores=208, **H100),
  Machine('v5e-16', 16, cores=448, **V5E),
  Machine('v5e-64', 64, cores=1792, **V5E),
)
CONFIGS = (
  *('car_lidc', 'mose_lidc', 'mose_lidc_light', 'car_cityscapes', 'mose_cityscapes'),
  *('sac_gta5:resnet101_base', 'sac_gta5:resnet101', 'sac_gta5:vgg16', 'sac_gta5:fcn8s'),
  *('sac_synthia:resnet101_base', 'sac_synthia:resnet101'),
  *('segformer_cityscapes', 'deeplabv3plus_cityscapes'),
)
HEAD = ['config', 'steps x images', 'TFLOP a step', 'GB moved', 'GB alive', 'MB of gradients']
SPREAD = ['config', 'on', 'devices used', 'hours', 'GB a device', 'steps a second', 'more devices']


@dataclasses.dataclass(frozen=True)
class Training:
  """Counted of one: of a step of its global batch. gradients: bytes; norms: layers of batch norm;
  pixels: that the host makes."""

  name: str
  batch: int
  cost: costs.Cost
  state: int
  gradients: int
  norms: int
  pixels: int

  @classmethod
  def of(cls, name: str) -> 'Training':
    config = configs.load(configs.path_of(name))
    begun = costs.setting(config, costs.published(config))
    size = lambda tree: sum(np.asarray(a).nbytes for a in jax.tree.leaves(tree))
    learning = [net for net in nets(begun.state).values() if isinstance(net, TrainState)]
    norms = jax.tree_util.tree_leaves_with_path([net.batch_stats for net in learning])
    images = [a for a in begun.batch.values() if a.ndim == 4 and a.shape[-1] == 3]
    return cls(
      name=name,
      batch=config.data.batch,
      cost=costs.counted(begun),
      state=size(begun.state),
      gradients=size([net.params for net in learning]),
      norms=sum('var' in jax.tree_util.keystr(path) for path, _ in norms),
      pixels=sum(math.prod(a.shape[:3]) for a in images),
    )

  def row(self) -> list[str]:
    cells = [
      f'`{self.name}`',
      f'{self.cost.steps:,} x {self.batch}',
      f'{self.cost.flops / 1e12:.2g}',
    ]
    cells += [f'{self.cost.moved / 1e9:,.0f}', f'{self.cost.memory / 1e9:.0f}']
    return [*cells, f'{self.gradients / 1e6:,.0f}']

  def rows(self) -> Iterator[list[str]]:
    """One for each machine."""
    for machine in MACHINES:
      n = machine.shared(self.batch)
      low, high = sorted(self.cost.hours(machine.rate(n)))
      memory = (self.state + (self.cost.memory - self.state) / n) / 1e9
      fits = '' if memory < machine.memory / 1e9 else ' (too many)'
      step = low * 3600 / self.cost.steps
      cells = [f'`{self.name}`', machine.name, f'{n} of {machine.devices}']
      cells += [f'{figure(low, 2)} to {figure(high, 2)}', figure(memory, 2) + fits]
      yield [*cells, figure(1 / step, 2), self.limit(machine, n, step)]

  def limit(self, machine: Machine, n: int, step: float) -> str:
    """What stops first as devices are added, if anything does here; step: seconds of computing."""
    exchanged = 2 * (n - 1) / n * self.gradients / machine.links if n > 1 else 0.0
    waited = 2 * self.norms * EXCHANGE if n > 1 else 0.0
    fed = self.pixels / (HOST * machine.cores)
    times = {'the host': fed, 'gradients': exchanged, 'batch norm': waited}
    slow = [f'{what} {t / step:.0%} of a step' for what, t in times.items() if t > 0.2 * step]
    if n < machine.devices:
      slow.insert(0, f'a batch of {self.batch} keeps {n} busy')
    return '; '.join(slow) or 'help'


def main() -> None:
  trainings = []
  for name in CONFIGS:
    trainings.append(Training.of(name))
    print(*trainings[-1].row(), flush=True)
  write(PAGE, 'counted', [HEAD, *(t.row() for t in trainings)])
  write(PAGE, 'spread', [SPREAD, *(row for t in trainings for row in t.rows())])


if __name__ == '__main__':
  main()
