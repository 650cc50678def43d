"""python -m tools.costs: counts what the published trainings cost and writes it into docs/costs.md.

Counted by car_jax.reproduce.costs from shapes; nothing is compiled or run.
"""

import pathlib
import re

from benchmarks import peaks
from car_jax import config as configs
from car_jax.reproduce import costs

PAGE = pathlib.Path(__file__).parents[1] / 'docs' / 'costs.md'
EFFICIENCY = 0.2  # assumed, as the page says
ACCELERATORS = [peaks.NAMED[name] for name in ('A100 80 GB', 'H100 SXM', 'TPU v5e')]
CONFIGS = (
  *('car_lidc', 'mose_lidc', 'mose_lidc_light', 'car_cityscapes', 'mose_cityscapes'),
  *('sac_gta5:resnet101_base', 'sac_gta5:resnet101', 'sac_gta5:vgg16', 'sac_gta5:fcn8s'),
  *('sac_synthia:resnet101_base', 'sac_synthia:resnet101'),
  *('segformer_cityscapes', 'deeplabv3plus_cityscapes'),
)


def row(name: str) -> list[str]:
  """Of one config: steps, operations, memory, hours."""
  file, _, variant = name.partition(':')
  config = configs.load(f'configs/{file}.py' + (f':{variant}' if variant else ''))
  cost = costs.of(config, costs.published(config))
  cells = [f'`{name}`', f'{cost.steps:,} x {config.data.batch}', f'{cost.flops / 1e12:.2g}']
  cells.append(f'{cost.memory / 1e9:.0f}')
  for peak in ACCELERATORS:
    rate = costs.Rate(peak.flops('float32') * EFFICIENCY, peak.bandwidth * 1e12, '')
    hours = cost.hours(rate)
    cells.append(' to '.join(f'{h:.1f}' if h < 10 else f'{h:.0f}' for h in sorted(hours)))
  return cells


def main() -> None:
  head = [
    'config',
    'steps x images',
    'TFLOP a step',
    'GB',
    *(f'hours, {peak.name}' for peak in ACCELERATORS),
  ]
  lines = [head, ['---'] * len(head), *map(row, CONFIGS)]
  table = ''.join(f'| {" | ".join(line)} |\n' for line in lines)
  PAGE.write_text(
    re.sub(r'(?s)(?<=<!-- counted -->\n).*?(?=<!-- end -->)', table, PAGE.read_text())
  )


if __name__ == '__main__':
  main()
