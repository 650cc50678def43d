"""python -m tools.costs: counts what the published trainings cost and writes it into docs/costs.md.

Counted by car_jax.reproduce.costs from shapes; nothing is compiled or run.
"""

import pathlib
import re

from car_jax import config as configs
from car_jax.reproduce import costs, experiments

PAGE = pathlib.Path(__file__).parents[1] / 'docs' / 'costs.md'
EFFICIENCY = 0.2  # assumed, as the page says
ACCELERATORS = {  # data sheets: dense TFLOP/s of float32 matrices as jax multiplies them, TB/s
  'A100 80 GB': (156, 2.0),  # TF32
  'H100 SXM': (495, 3.35),  # TF32
  'TPU v5e': (197, 0.82),  # bfloat16
}
SOURCES = (experiments.LIDC_V1, experiments.LIDC_V2, experiments.GTA5, experiments.SYNTHIA)
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
  if config.data.target:
    config.data.target.counts = ''  # a file that an earlier training makes
  streets = experiments.FLIPPED if config.data.get('class_flips') else experiments.ADAPTED
  given = {source.data: source for source in (*SOURCES, streets)}
  cost = costs.of(config, given, {k: dict(source.counts[0]) for k, source in given.items()})
  cells = [f'`{name}`', f'{cost.steps:,} x {config.data.batch}', f'{cost.flops / 1e12:.2g}']
  cells.append(f'{cost.memory / 1e9:.0f}')
  for peak, bandwidth in ACCELERATORS.values():
    hours = cost.hours(costs.Rate(peak * EFFICIENCY * 1e12, bandwidth * 1e12, ''))
    cells.append(' to '.join(f'{h:.1f}' if h < 10 else f'{h:.0f}' for h in sorted(hours)))
  return cells


def main() -> None:
  head = [
    'config',
    'steps x images',
    'TFLOP a step',
    'GB',
    *(f'hours, {name}' for name in ACCELERATORS),
  ]
  lines = [head, ['---'] * len(head), *map(row, CONFIGS)]
  table = ''.join(f'| {" | ".join(line)} |\n' for line in lines)
  PAGE.write_text(
    re.sub(r'(?s)(?<=<!-- counted -->\n).*?(?=<!-- end -->)', table, PAGE.read_text())
  )


if __name__ == '__main__':
  main()
