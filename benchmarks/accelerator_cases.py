"""What benchmarks.accelerator times, by name: trainings, images that are made, scores."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from benchmarks import generation, metrics, reliability
from car_jax import config as configs
from car_jax import sharding
from car_jax.data import opening
from car_jax.generate.blocks import Compute
from car_jax.generate.samplers import NoiseSchedule
from car_jax.generate.unet import ControlNet, UNet
from car_jax.methods.controlnet import controlled_losses
from car_jax.metrics import onepass
from car_jax.reproduce import costs

SAMPLER_STEPS = 25  # of an image


class Unavailable(Exception):
  """What cannot be timed, and why."""


@dataclasses.dataclass(frozen=True)
class Program:
  """function(*arguments), on the device; a call sees `images` of them.

  carries: the result begins with what takes the first argument's place in the next call, whose
  memory it may take. host: the batch that is the second argument, as it comes from the pipeline.
  share: of a training's steps.
  """

  name: str
  function: Callable
  arguments: tuple[Any, ...]
  images: float
  carries: bool = False
  host: Mapping[str, np.ndarray] | None = None
  share: float = 1.0
  note: str = ''


Case = Callable[[str, bool, Mesh], Iterator[Program]]


def with_dtype(node: Any, dtype: str) -> bool:
  """Sets it in every net of a method's entry; whether there is one that has it."""
  if not isinstance(node, ConfigDict):
    return False
  if 'dtype' in node:
    node.dtype = dtype
  inner = [with_dtype(value, dtype) for value in node.values()]
  return 'dtype' in node or any(inner)


def training(
  path: str,
  toy_path: str,
  dtype: str,
  toy: bool,
  mesh: Mesh,
  changes: Sequence[tuple[str, str]] = (),
) -> Iterator[Program]:
  """Every kind of step that a config's training has, at the published size and batch.

  changes: of the config's options, such as these, but for the toy's.
  """
  config = configs.load(toy_path) if toy else configs.load(path, changes)
  name = pathlib.Path(path).stem + (f':{path.partition(":")[2]}' if ':' in path else '')
  if not with_dtype(config.method, dtype) and dtype != 'float32':
    raise Unavailable(f'{name}: its nets have no dtype')
  data = opening.open_dataset(config.data) if toy else costs.published(config)
  begun = costs.setting(config, data)
  host = made_up(begun.batch, data.info.num_classes)
  state = sharding.place_state(begun.state, mesh)
  key = jax.random.key(0)
  for kind, count in begun.kinds.items():
    more = {} if kind is None else {'phase': kind}
    own = jax.tree.map(jnp.copy, state)  # the step's own, which it may write over
    yield Program(
      f'{name}, {kind}' if kind is not None else name,
      functools.partial(begun.method.step, **more),
      (own, sharding.place_batch(host, mesh), key),
      images=config.data.batch,
      carries=True,
      host=host,
      share=count / costs.CYCLE,
      note=f'{count} of {costs.CYCLE} steps' if len(begun.kinds) > 1 else '',
    )


def made_up(batch: Mapping[str, np.ndarray], classes: int) -> dict[str, np.ndarray]:
  """Random bytes in place of a batch's images and labels: zeros are computed faster."""
  rng, out = np.random.default_rng(0), dict(batch)
  for key, array in batch.items():
    if array.dtype == np.uint8 and array.ndim > 2:
      top = classes if 'label' in key or key == 'black_box' else 256
      out[key] = rng.integers(0, top, array.shape, dtype=np.uint8)
  return out


def filled(shapes: Any) -> Any:
  """Small random numbers of these shapes, on the device."""
  leaves = jax.tree.leaves(shapes)
  drawn = 0.02 * jax.random.normal(jax.random.key(0), (max(leaf.size for leaf in leaves),))

  def of(leaf: Any) -> Any:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
      return jnp.ones(leaf.shape, leaf.dtype)
    return drawn[: leaf.size].reshape(leaf.shape).astype(leaf.dtype)

  return jax.tree.map(of, shapes)


def nets(dtype: str, toy: bool, channels: int, remat: bool = False) -> tuple[UNet, ControlNet]:
  sizes, compute = generation.TINY if toy else {}, Compute(jnp.dtype(dtype), remat=remat)
  unet = UNet(**sizes, in_channels=channels, compute=compute)
  return unet, ControlNet(**sizes, conditioning_channels=generation.HINT, compute=compute)


def image(inpaint: bool, dtype: str, toy: bool, mesh: Mesh) -> Iterator[Program]:
  """A guided step of the sampler: in style with a ControlNet, or of inpainting without one."""
  unet, control = nets(dtype, toy, 9 if inpaint else 4)
  used = None if inpaint else control
  height, width = (64, 64) if toy else (1024, 2048) if inpaint else (512, 512)
  shapes = generation.arguments_of(unet, used, (height, width), jnp.dtype(dtype))
  yield Program(
    f'{"inpainting" if inpaint else "style with ControlNet"}, {height}x{width}',
    generation.step_of(unet, used),
    jax.device_put(filled(shapes), mesh.devices.flat[0]),
    images=1 / SAMPLER_STEPS,
    note=f'a step of {SAMPLER_STEPS}, without the autoencoder',
  )


def controlnet(dtype: str, toy: bool, mesh: Mesh) -> Iterator[Program]:
  """The gradient of ControlNet's training, UNet frozen, at 512x512: half a batch of GenVal's."""
  (unet, control), batch = nets(dtype, toy, 4, remat=True), 1 if toy else 4
  side, schedule = 64 if toy else 512, NoiseSchedule()
  params, control_params, x, _, hint, context, _ = generation.arguments_of(
    unet, control, (side, side), jnp.float32
  )
  rows = lambda a: jax.ShapeDtypeStruct((batch, *a.shape[1:]), jnp.float32)
  times = jax.ShapeDtypeStruct((batch,), jnp.int32)
  shapes = control_params, params, rows(x), rows(x), times, rows(context), rows(hint)

  def gradient(control_params, params, latents, noise, times, context, hint):
    def loss(own):
      seen = latents, noise, times
      return controlled_losses((unet, control), (params, own), schedule, seen, context, hint).mean()

    return jax.grad(loss)(control_params)

  yield Program(
    f'ControlNet, {side}x{side}',
    gradient,
    jax.device_put(filled(shapes), mesh.devices.flat[0]),
    images=batch,
    note='its gradient, without autoencoder and optimizer',
  )


def scores(dtype: str, toy: bool, mesh: Mesh) -> Iterator[Program]:
  """Of samples against readers, and what a study counts of an image's logits."""
  if dtype != 'float32':
    raise Unavailable('scores: they are float32')
  rng, images = np.random.default_rng(0), 2 if toy else metrics.IMAGES
  put = functools.partial(jax.device_put, device=mesh.devices.flat[0])
  readers = put(metrics.discs(rng, images, metrics.READERS))
  for samples in (4,) if toy else (16, 100):
    yield Program(
      f'scores of {samples} samples, {metrics.SIZE}x{metrics.SIZE}',
      functools.partial(metrics.score, parts='ged+hm+dice+rest'),
      (put(metrics.discs(rng, images, samples)), readers),
      images=images,
    )
  logits, labels = reliability.chunk(rng, 4096 if toy else reliability.CHUNK)
  yield Program(
    'counts of a study, 1024x2048, 19 classes',
    onepass.counts,
    (put(logits), put(labels), put(np.ones(labels.shape, bool))),
    images=1,
  )


def trains(path: str, toy: str) -> Case:
  return functools.partial(training, path, f'configs/smoke.py:{toy}')


CASES: dict[str, Case] = {
  'car_lidc': trains('configs/car_lidc.py', 'car'),
  'mose_lidc': trains('configs/mose_lidc.py', 'mose'),
  'segformer_b0': trains('configs/segformer_cityscapes.py:b0', 'segformer'),
  'sac': trains('configs/sac_gta5.py:resnet101', 'sac'),
  'deeplabv3plus_r101': trains('configs/deeplabv3plus_cityscapes.py:r101', 'supervised'),
  'style': functools.partial(image, False),
  'scores': scores,
  'car_cityscapes': trains('configs/car_cityscapes.py', 'car'),
  'mose_cityscapes': trains('configs/mose_cityscapes.py', 'mose'),
  'abn': trains('configs/sac_gta5.py:resnet101_base', 'abn'),
  'segformer_b5': trains('configs/segformer_cityscapes.py:b5', 'segformer'),
  'controlnet': controlnet,
  'inpainting': functools.partial(image, True),
}
