"""car-jax generate style --config configs/genval_style.py --out DIR [--start N --stop M]

Repaints scenes in other domains: a ControlNet keeps what the label ids say, the prompt says the
domain. Image N of every domain is of the same scene, crop and noise. The same command continues an
interrupted one. A config is Python that runs with your rights: read a stranger's before you use it.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from car_jax import files
from car_jax.data.transforms import nearest_resized
from car_jax.errors import UserError
from car_jax.generate import (
  captions,
  cldm,
  command,
  configs,
  pipelines,
  programs,
  records,
  style,
  weights,
)
from car_jax.generate import scenes as scene_files
from car_jax.generate.blocks import Compute
from car_jax.generate.options import StyleOptions
from car_jax.generate.samplers import Sampler
from car_jax.generate.unet import ControlNet
from car_jax.interrupt import Interrupt

HINTS = {channels: hint for hint, channels in style.HINTS.values()}
SAME = ('block_out_channels', 'attention_levels', 'layers_per_block', 'cross_attention_dim')
"""In what a ControlNet must be like its UNet."""
CONTROLNET = 'the folder of the ControlNet or a checkpoint of GenVal'
WEIGHTS = 'the folder of Stable Diffusion 1.5, in the layout of diffusers'


@dataclasses.dataclass(frozen=True)
class Seen:
  """A scene as the net sees it: picture uint8 [h, w, 3], label ids [h, w]."""

  scene: str
  image: np.ndarray
  labels: np.ndarray
  caption: str


@dataclasses.dataclass(frozen=True)
class Stylist:
  made: StyleOptions
  scenes: scene_files.Scenes
  opened: weights.StableDiffusion
  control: ControlNet
  control_state: tuple[Any, dict[str, np.ndarray]] | None
  """Of a checkpoint file, which has no config: where it is from, and its weights."""
  sampler: Sampler

  @property
  def nets(self) -> pipelines.Networks:
    unet, vae, text_encoder = self.opened.networks
    return pipelines.Networks(unet, vae, text_encoder, self.control)

  def seen(self, index: int) -> Seen:
    """What is cut of the index's scene: of a square picture any square of the shorter side."""
    keys = programs.keys(self.made.seed, index)
    scene = self.scenes[int(programs.host_rng(keys['scene']).integers(len(self.scenes)))]
    height, width = scene.labels.shape
    window = [slice(None), slice(None)]
    if self.made.crop == 'random_square':
      last = style.offsets(height, width)
      offset = int(programs.host_rng(keys['place']).integers(last, endpoint=True))
      window[int(width > height)] = slice(offset, offset + min(height, width))
    image, ids = scene.image[*window], scene.labels[*window]
    size = picture_size(self.made, height, width, self.nets.multiple)
    smaller = nearest_resized if self.made.aliased else antialiased
    ids = nearest_resized(ids, *size)
    caption = captions.sentence(ids) if scene.caption is None else scene.caption
    return Seen(scene.name, smaller(image, *size), ids, caption)

  def prompt(self, caption: str, domain: str) -> str:
    text = f'{caption}, in {self.made.domains[domain]}'
    return f'{text}, ' if self.made.trailing_comma else text

  def pictures(self, params: Any, rows: dict[str, Any]) -> Any:
    """-> [B, H, W, 3] float32; made for jit."""
    nets, hint = self.nets, rows['hint']
    height, width = (side // nets.vae.factor for side in hint.shape[1:3])
    noise = programs.normal(rows['noise'], (height, width, nets.vae.latent_channels))
    how: Any = dict(scale=self.made.guidance, strength=self.made.strength)
    ids = programs.both(rows['ids'])
    latents = pipelines.repainted(nets, self.sampler, params, ids, noise, hint, **how)
    return pipelines.decoded(nets, params, latents)

  def make(
    self, program: programs.Program, jobs: Sequence[command.Job]
  ) -> Iterator[records.StyleImage]:
    seen = [self.seen(index) for index, _ in jobs]
    prompts = [self.prompt(s.caption, domain) for s, (_, domain) in zip(seen, jobs, strict=True)]
    rows = [
      dict(
        ids=self.opened.tokenizer(['', prompt]),
        noise=programs.keys(self.made.seed, index)['noise'],
        hint=HINTS[self.control.conditioning_channels](s.labels),
      )
      for s, prompt, (index, _) in zip(seen, prompts, jobs, strict=True)
    ]
    whole = functools.partial(style.pixels, truncated=self.made.truncated)
    for s, prompt, picture in zip(seen, prompts, program(rows), strict=True):
      original = whole(style.model_range(s.image))
      texts = dict(prompt=prompt, negative_prompt='')
      yield records.StyleImage(
        scene=s.scene, image=whole(picture), labels=s.labels, original=original, prompts=texts
      )

  @property
  def groups(self) -> dict[str, dict[str, Any]]:
    return {name: {'prompt': text} for name, text in self.made.domains.items()}

  def settings(self) -> dict[str, Any]:
    made, path = self.made, pathlib.Path(self.made.controlnet)
    control = (
      command.fingerprint(path, ['controlnet'])
      if path.is_dir()
      else f'{command.crc_of(0, path):08x}'
    )
    pipeline = command.fingerprint(pathlib.Path(made.weights), self.opened.kinds)
    marks = dict(pipeline=pipeline, controlnet=control)
    return command.settings(made, self.scenes, self.opened.sampler, marks)

  def loaded(self, stop: Interrupt) -> tuple[int, Any]:
    made, dtype = self.made, programs.cast(self.made.dtype)
    params = weights.load_pipeline(made.weights, dtype=dtype).params
    where, state = self.control_state or weights.read('controlnet', made.controlnet)
    params['controlnet'] = weights.fitted('controlnet', self.control, state, where, dtype)
    devices = programs.Devices(params, made.batch, stop)
    return devices.size, functools.partial(self.make, devices.program(self.pictures))


def antialiased(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """uint8 [H, W, 3] -> [height, width, 3]: means over areas, or bicubic where it grows."""
  import cv2

  how = cv2.INTER_AREA if height <= len(image) else cv2.INTER_CUBIC
  return cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=how)


def picture_size(made: StyleOptions, height: int, width: int, multiple: int) -> tuple[int, int]:
  """Of what is made of a scene [height, width]; of a whole one the longer side is rounded."""
  side = made.size
  if made.crop == 'random_square':
    return side, side
  share = max(height, width) / min(height, width)
  long = max(side, round(side * share / multiple) * multiple)
  return (side, long) if width >= height else (long, side)


def opened(made: StyleOptions) -> Stylist:
  """All configs, captions and sizes, looked at before the first weight. Raises UserError."""
  check_domains(made)
  compute = Compute(programs.cast(made.dtype))
  folder = command.folder_of(made.weights, 'weights', WEIGHTS)
  pipeline = weights.open_pipeline(folder, sampler=made.sampler, compute=compute)
  if pipeline.unet.in_channels != pipeline.unet.out_channels:
    raise UserError(
      f'{folder} is of a model for inpainting: its UNet has {pipeline.unet.in_channels} input '
      f'channels\n  style takes one for text to image, {pipeline.unet.out_channels} channels'
    )
  control, state = controlnet(command.folder_of(made.controlnet, 'controlnet', CONTROLNET), compute)
  check_controlnet(made.controlnet, control, pipeline)
  sampler = command.sampler_of(made, pipeline.schedule, pipeline.sampler, made.steps, 'steps')
  stylist = Stylist(made, scene_files.of(made.scenes), pipeline, control, state, sampler)
  command.check_side('config.size', made.size, stylist.nets.multiple)
  return stylist


def check_domains(made: StyleOptions) -> None:
  if not made.domains:
    raise UserError("config.domains is empty\n  it is a dict such as dict(fog='thick fog')")
  for name, text in made.domains.items():
    if not isinstance(text, str) or not text.strip():
      raise UserError(f'config.domains.{name} is {text!r}\n  it is a text, such as in heavy rain')


def controlnet(path: pathlib.Path, compute: Compute) -> tuple[ControlNet, Any]:
  """The network of a folder, or of a checkpoint file with its weights. Raises UserError."""
  if path.is_dir():
    place = path / 'config.json'
    net: Any = configs.module('controlnet', files.read_json(place), place, compute)
    weights.weight_file('controlnet', path)
    return net, None
  state = cldm.read(path).get('controlnet')
  if state is None:
    raise UserError(f'{path} has no ControlNet\n  {CONTROLNET} is expected')
  net = cldm.of_15('controlnet', state, compute)
  return net, (path, state)


def check_controlnet(where: str, control: ControlNet, pipeline: weights.StableDiffusion) -> None:
  if control.conditioning_channels not in HINTS:
    raise UserError(
      f'{where} takes hints of {control.conditioning_channels} channels\n'
      '  labels are shown in 1 (label ids) or 3 (colours of ADE20K)'
    )
  for key in SAME:
    one, other = getattr(control, key), getattr(pipeline.unet, key)
    if one != other:
      raise UserError(f'{where} does not fit the UNet: {configs.OURS.get(key, key)} {one}, {other}')
  factor = 2 ** (len(control.conditioning_embedding_out_channels) - 1)
  if factor != pipeline.vae.factor:
    raise UserError(
      f'{where} takes hints {factor} times as large as latents, the autoencoder makes pictures '
      f'{pipeline.vae.factor} times as large'
    )


def main(arguments: Sequence[str]) -> int:
  return command.main(arguments, 'style', __doc__, StyleOptions, opened)
