"""What options do to a training step's memory: python -m benchmarks.memory [TOPOLOGY [CASE ..]]

By the compiler's own analysis of the step of published nets; nothing is run. Without TOPOLOGY it is
compiled for a CPU, which computes much of bfloat16 in float32 and so hides what it saves; with one,
such as v5e:2x4, for such TPU chips, where libtpu is installed: none need be at hand. Each figure is
the memory of one device: arguments, outputs that are not donated arguments, scratch.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh
from ml_collections import ConfigDict

from benchmarks import timing
from benchmarks.accelerator_cases import with_dtype
from car_jax import config as configs
from car_jax import loop, registry, sharding

GB, DEVICES = 1e9, 8


@dataclasses.dataclass(frozen=True)
class Case:
  """A config, and the shapes of its batch: images of `size`, B of them on each device."""

  config: str
  classes: int
  batch: int
  size: tuple[int, int]
  readers: int = 1
  more: Callable[[Any], None] = lambda config: None


def published_unet(config: ConfigDict) -> None:
  """The sizes of Stable Diffusion 1.5's UNet and text encoder, on pixels in squares of 8."""
  config.method.update(widths=(320, 640, 1280, 1280), attention=(True, True, True, False), heads=8)
  config.method.update(layers=2, groups=32, text_width=768, text_layers=12, vocab_size=49_408)
  config.method.update(patch=8, remat=False)


CASES = {
  'MoSE': Case('configs/mose_lidc.py', 2, 4, (128, 128), 4),
  'CAR': Case('configs/car_lidc.py', 2, 4, (128, 128), 4),
  'SAC, ResNet-101': Case('configs/sac_gta5.py:resnet101', 19, 1, (128, 256)),
  'SegFormer-B2': Case('configs/segformer_cityscapes.py:b2', 19, 1, (512, 512)),
  'UNet of Stable Diffusion': Case(
    'configs/genval_tiny.py:diffusion', 2, 1, (256, 256), more=published_unet
  ),
}
TOY = {'supervised': Case('configs/smoke.py:supervised', 2, 1, (32, 32))}
VARIANTS: dict[str, dict[str, Any]] = {
  'float32': {},
  'bfloat16': dict(dtype='bfloat16'),
  'remat': dict(remat=True),
  'both': dict(dtype='bfloat16', remat=True),
  f'fsdp, {DEVICES} devices': dict(fsdp=True),
  'all': dict(dtype='bfloat16', remat=True, fsdp=True),
}


def arrays(case: Case, method: Any, rows: int) -> dict[str, np.ndarray]:
  """A batch of zeros, with all that any method looks at."""
  shape = rows, *case.size
  image, label = np.zeros((*shape, 3), np.float32), np.zeros(shape, np.int32)
  batch = dict(image=image, label=label)
  batch |= dict(labels=np.zeros((rows, case.readers, *case.size), np.int32))
  batch |= dict(label_weight=np.zeros((rows, case.readers), np.float32))
  if hasattr(method, 'views'):
    views, matrix = method.views, np.zeros((rows * method.views, 2, 3), np.float32)
    many = lambda a: np.repeat(a, views, 0)
    batch |= dict(target=many(image), student=many(image), target_label=many(label))
    batch |= dict(affine=matrix, affine_inv=matrix, views=np.full(rows * views, views))
  if hasattr(method, 'text_width'):
    batch |= dict(tokens=np.zeros((rows, 77), np.int32), hint=image)
  return batch


def placed(tree: Any, shardings: Any) -> Any:
  """Shapes, types and places."""
  of = lambda a, where: jax.ShapeDtypeStruct(np.shape(a), a.dtype, sharding=where)
  return jax.tree.map(of, tree, shardings)


def bytes_of(case: Case, variant: dict[str, Any], devices: Any) -> int:
  """The memory that a step takes on each device."""
  config = configs.load(case.config)
  case.more(config)
  config.fsdp = variant.get('fsdp', False)
  if 'remat' in variant:
    config.method.remat = True
  if 'dtype' in variant:
    with_dtype(config.method, variant['dtype'])
  count = DEVICES if config.fsdp else 1
  mesh = Mesh(np.array(devices[:count]), ('data',))
  context = dict(num_classes=case.classes, steps_per_epoch=100, ignore_label=None)
  method = registry.method(config.method.to_dict(), **context)
  state = method.init(0, arrays(case, method, 1))
  batch = arrays(case, method, case.batch * count)
  config.evals, config.best = {}, ''
  run = loop.Run(config, '', mesh, None, method)  # type: ignore[arg-type]
  split = jax.tree.map(lambda a: sharding.split(mesh), batch)
  arguments = placed(state, sharding.of_state(state, mesh, config.fsdp)), placed(batch, split)
  used: Any = run.jitted.lower(method.phase(0, state), *arguments).compile().memory_analysis()
  kept = used.output_size_in_bytes - used.alias_size_in_bytes
  return used.argument_size_in_bytes + kept + used.temp_size_in_bytes


def row(case: Case, devices: Any) -> Iterator[str]:
  for variant in VARIANTS.values():
    try:
      yield f'{bytes_of(case, variant, devices) / GB:.2f}'
    except jax.errors.JaxRuntimeError as e:  # the compiler knows how much a chip has
      if 'RESOURCE_EXHAUSTED' not in str(e):
        raise
      yield 'more than there is'


def main(toy: bool, topology: str = '', *names: str) -> list[str]:
  timing.describe()
  devices = jax.devices() * DEVICES if toy else jax.devices()
  if topology:
    devices = topologies.get_topology_desc(platform='tpu', topology_name=topology).devices
    devices = sharding.ordered(devices)
  cases = TOY if toy else {name: CASES[name] for name in names or CASES}
  print(f'GB on each {devices[0].device_kind}')
  print('| step | on each device | ' + ' | '.join(VARIANTS) + ' |')
  for name, case in cases.items():
    shape = f'{case.batch} x {case.size[1]}x{case.size[0]}'
    print(f'| {name} | {shape} |', end='', flush=True)
    for figure in row(case, devices):
      print(f' {figure} |', end='', flush=True)
    print()
  return []


if __name__ == '__main__':
  sys.exit(timing.command(main))
