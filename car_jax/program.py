"""A trained model as a program for jax alone: StableHLO, its arrays beside it, and a small loader.

  model.stablehlo    what jax.export wrote: arrays, images, keys, seed -> outputs; for any number of
                     images of any size, unless it says otherwise, on CPU, GPU and TPU
  arrays.npz         parameters, batch statistics and the calibrator
  model.json         inputs, outputs, classes, versions; nothing that runs
  load_exported.py   the loader, which needs jax and numpy

Letters: B images, N samples, H x W pixels, C classes.
"""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as exporting

from car_jax import checkpoints, folders, load_exported
from car_jax.data import transforms
from car_jax.errors import UserError, nearest, reason
from car_jax.methods.inference import Inference
from car_jax.predictor import Predictor, outputs
from car_jax.typing import Array

FORMAT = 'car_jax program 1'
PROGRAM, ARRAYS, ABOUT, LOADER = 'model.stablehlo', 'arrays.npz', 'model.json', 'load_exported.py'
PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')
LEAST = 32  # side of an image that a program for any size takes
SHAPES = dict(
  mask='B,H,W',
  samples='B,N,H,W',
  weights='B,N',
  probabilities='B,H,W,C',
  entropy='B,H,W',
  mutual_information='B,H,W',
)
MEANING = dict(
  mask='the likeliest class by the probabilities, its number in `classes`',
  samples='the class of every pixel in each segmentation that was drawn',
  weights='of the samples, which sum to 1',
  probabilities='of the classes',
  entropy='of the probabilities, in nats',
  mutual_information='how much the samples differ, in nats',
)


@dataclasses.dataclass(frozen=True)
class Options:
  """samples: drawn of each image. predictor: its name, '' for the method's own. size: height and
  width of all images; () for any of at least LEAST pixels."""

  samples: int = 8
  predictor: str = ''
  size: tuple[int, ...] = ()
  platforms: tuple[str, ...] = ('cpu', 'cuda', 'tpu')

  def __post_init__(self) -> None:
    if self.samples < 1:
      raise UserError(f'--samples cannot be {self.samples}\n  it is at least 1')
    if unknown := [name for name in self.platforms if name not in PLATFORMS]:
      raise UserError(f'--platforms: no {unknown[0]!r}\n  known: {", ".join(PLATFORMS)}')

  def draws(self, model: Predictor) -> int:
    """How many segmentations: `samples`, or one where the method's own are all alike."""
    return self.samples if self.predictor else model.draws(self.samples)


def export(model: Predictor, out: pathlib.Path, options: Options) -> None:
  """Writes the folder `out`; one of this kind is replaced.

  Raises UserError for a model that is no program for any size, see `traced`.
  """
  exported, arrays = traced(model, options)
  with folders.replaced(out, PROGRAM) as part:
    (part / PROGRAM).write_bytes(exported.serialize())
    np.savez(part / ARRAYS, **arrays)
    (part / ABOUT).write_text(json.dumps(_about(model, options, exported), indent=2) + '\n')
    shutil.copyfile(load_exported.__file__, part / LOADER)


def traced(model: Predictor, options: Options) -> tuple[exporting.Exported, dict[str, Any]]:
  """The program, and the arrays that it is called with first.

  Raises UserError where its size must be fixed, and for a predictor that the method does not have.
  """
  known = model.method.predictors()
  name = options.predictor or next(iter(known))
  if name not in known:
    raise UserError(f'the model has no predictor {name!r}\n{nearest(name, known)}')
  tree = dict(state=model.state, calibrator=model.calibrator)
  if isinstance(model.method, Inference) and model.method.crop and not options.size:
    raise UserError(
      f'{model.path} averages windows (config.method.crop), and how many follows from the size\n'
      f'  fix it: {_example(model)}'
    )
  named = checkpoints.leaves(jax.device_get(tree))
  unused = model.method.training_parts
  arrays = {k: np.asarray(a) for k, a in named if k.split('/')[1] not in unused}

  def program(arrays: Mapping[str, Array], images: Array, keys: Array, seed: Array) -> dict:
    values = [arrays.get(k, a) for k, a in named]
    given = jax.tree.unflatten(jax.tree.structure(tree), values)
    batch = dict(image=jnp.asarray(transforms.SCALED)[images], example=keys)
    rng = jax.random.key(seed)
    count = options.draws(model)
    args = (model.method, known[name], given['state'], batch, rng, count, given['calibrator'])
    return dict(vars(outputs(*args)))

  spec = jax.ShapeDtypeStruct
  height, width = options.size or ('h', 'w')
  bounds = [] if options.size else [f'{side}>={LEAST}' for side in ('h', 'w')]
  shape = exporting.symbolic_shape(f'b, {height}, {width}, 3', constraints=bounds)
  try:
    return exporting.export(jax.jit(program), platforms=options.platforms)(
      jax.tree.map(lambda a: spec(a.shape, a.dtype), arrays),
      spec(shape, np.uint8),
      spec(shape[:1], np.uint32),
      spec((), np.uint32),
    ), arrays
  except Exception as e:
    sizes = 'of this size' if options.size else 'of any size'
    mend = '' if options.size else f'\n  fix the size: {_example(model)}'
    raise UserError(f'{model.path} is no program for images {sizes} ({reason(e)}){mend}') from e


def _example(model: Predictor) -> str:
  height, width = model.size or (256, 256)
  return f'--size {height},{width}'


def _about(model: Predictor, options: Options, exported: exporting.Exported) -> dict[str, Any]:
  sides: list[Any] = [*options.size] or ['H', 'W']
  draws = options.draws(model)
  lengths = dict(B='B', N=draws, C=model.info.num_classes, H=sides[0], W=sides[1])
  made = jax.tree.unflatten(exported.out_tree, exported.out_avals)
  return dict(
    format=FORMAT,
    method=model.config.method.name,
    predictor=options.predictor or next(iter(model.method.predictors())),
    step=model.step,
    classes=[str(name) for name in model.info.class_names],
    samples=draws,
    size=dict(height=sides[0], width=sides[1], least=1 if options.size else LEAST),
    platforms=[*options.platforms],
    calibrated=model.calibrator is not None,
    inputs=[
      dict(name='arrays', file=ARRAYS),
      dict(name='images', shape=['B', *sides, 3], dtype='uint8', about='grey ones three times'),
      dict(name='keys', shape=['B'], dtype='uint32', about='what draws of an image follow from'),
      dict(name='seed', shape=[], dtype='uint32', about='and this'),
    ],
    outputs=[
      dict(
        name=k,
        shape=[lengths[d] for d in SHAPES[k].split(',')],
        dtype=made[k].dtype.name,
        about=MEANING[k],
      )
      for k in SHAPES
    ],
    versions=checkpoints.versions(),
  )
