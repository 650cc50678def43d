"""car-jax generate ood --config configs/genval_ood.py --out DIR [--start N --stop M]

Inpaints objects into scenes, blends them with what is around, and finds their masks; an image
without a mask is kept with the reason and left out of evaluations. The same command continues an
interrupted one. A config is Python that runs with your rights: read a stranger's before you use it.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from car_jax.data import labels
from car_jax.errors import UserError
from car_jax.generate import (
  boxes,
  command,
  masks,
  pipelines,
  programs,
  promptable,
  records,
  style,
  weights,
)
from car_jax.generate import scenes as scene_files
from car_jax.generate.blocks import Compute
from car_jax.generate.boxes import Box
from car_jax.generate.captioned import Scene
from car_jax.generate.options import ObjectOptions
from car_jax.generate.samplers import Sampler, denoised
from car_jax.interrupt import Interrupt

WEIGHTS = 'the folder of the inpainting model, in the layout of diffusers'
STREETS = labels.TRAIN_ID_TO_LABEL_ID[:2]  # road and sidewalk
Window = tuple[slice, slice]
GROUPED = 8  # times as many images as are made at once are sorted by the size of their windows


class Plan(NamedTuple):
  """Where an object goes: a function of the seed, the index and the object alone."""

  name: str
  scene: Scene
  box: Box
  keys: dict[str, np.ndarray]


class Pass(NamedTuple):
  """How a masked part is painted: from noise, or with a strength below 1 from what is there."""

  sampler: Sampler
  guidance: float
  strength: float


@dataclasses.dataclass(frozen=True)
class Inpainter:
  made: ObjectOptions
  scenes: scene_files.Scenes
  opened: weights.StableDiffusion
  first: Pass
  second: Pass
  mask: masks.Method

  @property
  def nets(self) -> pipelines.Networks:
    return pipelines.Networks(*self.opened.networks)

  def plan(self, index: int, name: str) -> Plan:
    """Raises UserError where no scene has a street for the box, if it has to be there."""
    keys = programs.keys(self.made.seed, index, name)
    rng, place = (programs.host_rng(keys[use]) for use in ('scene', 'place'))
    count = len(self.scenes)
    for k in rng.permutation(count) if self.made.road_only else [rng.integers(count)]:
      scene = self.scenes[int(k)]
      height, width = scene.labels.shape
      sizes = box_sizes(self.made, height)
      if self.made.road_only:
        box = boxes.draw_on(place, np.isin(scene.labels, STREETS), sizes)
      else:
        box = boxes.draw(place, height, width, sizes)
      if box is not None:
        return Plan(name, scene, box, keys)
    raise UserError('no scene has a street where a box can lie\n  --config.road_only=False')

  def prompts(self, name: str) -> tuple[str, str]:
    """Of the two passes."""
    vowel = self.made.always_an or name[0].lower() in 'aeiou'
    prompt = f'A photo of {"an" if vowel else "a"} {name}'
    return prompt, name if self.made.refine.bare_prompt else prompt

  def painted(self, how: Pass, params: Any, rows: dict[str, Any]) -> dict[str, Any]:
    """-> picture [B, H, W, 3] float32, what is masked painted anew; made for jit.

    With tokens to look for, rows['focus'] [B, L], also the attention to them [B, h, w].
    """
    nets, image = self.nets, rows['image'].astype(jnp.float32) / 127.5 - 1
    height, width = (side // nets.vae.factor for side in image.shape[1:3])
    draw = lambda use: programs.normal(rows[use], (height, width, nets.vae.latent_channels))
    beside = pipelines.surroundings(nets, params, image, rows['mask'], draw('masked'))
    latents = draw('noise')
    if how.strength < 1:
      whole = pipelines.encoded(nets, params, image, draw('image_noise'))
      start = self.opened.schedule, how.sampler, whole, latents, how.strength
      latents = pipelines.first_latents(*start)
    text = pipelines.context(nets, params, programs.both(rows['ids']))
    focus = jnp.concatenate([rows['focus']] * 2) if 'focus' in rows else None
    options: Any = dict(beside=beside, focus=focus)
    predict = pipelines.guided_noise(nets, params, text, how.guidance, **options)
    if focus is None:
      latents = denoised(how.sampler, predict, latents)
      return dict(picture=pipelines.decoded(nets, params, latents))
    latents, seen = pipelines.attended(how.sampler, predict, latents)
    return dict(picture=pipelines.decoded(nets, params, latents), attention=seen)

  def inpainted(
    self, program: programs.Program, plans: Sequence[Plan]
  ) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """-> each scene with the object, uint8 [H, W, 3], and how likely it is where in the box."""
    side, rows = self.made.size, []
    for plan in plans:
      mask = boxes.blurred_mask if self.made.blurred_mask else boxes.crop_mask
      prompt, _ = self.prompts(plan.name)
      row = dict(image=boxes.resized(plan.box.crop_of(plan.scene.image), side, side))
      row |= dict(
        mask=mask(plan.box, side) >= boxes.INSIDE, ids=self.opened.tokenizer(['', prompt])
      )
      row |= {use: plan.keys[use] for use in ('noise', 'masked')}
      if self.made.masks.prior:
        row['focus'] = self.opened.tokenizer.position(prompt, plan.name).astype(np.float32)
      rows.append(row)
    out = program(rows)
    priors = out.get('attention', [None] * len(plans))
    return [
      (pasted(plan, picture), None if prior is None else in_box(prior, plan.box))
      for plan, picture, prior in zip(plans, out['picture'], priors, strict=True)
    ]

  def refined(
    self, program: programs.Program, plans: Sequence[Plan], images: Sequence[np.ndarray]
  ) -> list[np.ndarray]:
    """The images after the second pass, those with windows of one size together."""
    whole = self.made.refine.area == 'full'
    groups: dict[tuple[int, int], list[tuple[int, Window]]] = {}
    for k, plan in enumerate(plans):
      height, width = plan.scene.labels.shape
      window = (slice(0, height), slice(0, width))
      if not whole:
        window = box_window(plan.box, height, width, self.nets.multiple)
      rows, columns = window
      size = rows.stop - rows.start, columns.stop - columns.start
      groups.setdefault(size, []).append((k, window))
    refined = [*images]
    for members in groups.values():
      out = program([self._refined_row(plans[k], images[k], window) for k, window in members])
      for (k, window), picture in zip(members, out['picture'], strict=True):
        made = style.pixels(picture)
        refined[k] = made if whole else composite(plans[k], window, made)
    return refined

  def _refined_row(self, plan: Plan, image: np.ndarray, window: Window) -> programs.Row:
    mask = plan.box.mask(*plan.scene.labels.shape) >= boxes.INSIDE
    _, prompt = self.prompts(plan.name)
    row = dict(image=image[window], mask=mask[window], ids=self.opened.tokenizer(['', prompt]))
    uses = dict(noise='again', masked='masked_again', image_noise='image_again')
    return row | {name: plan.keys[use] for name, use in uses.items()}

  def make(
    self, first: programs.Program, second: programs.Program, jobs: Sequence[command.Job]
  ) -> Iterator[records.ObjectImage]:
    plans = [self.plan(index, name) for index, name in jobs]
    made = self.inpainted(first, plans)
    images = [image for image, _ in made]
    refining = self.made.refine.area != 'none'
    edited = self.refined(second, plans, images) if refining else images
    for plan, (image, prior), seen in zip(plans, made, edited, strict=True):
      more = {} if prior is None else {'prior': prior}
      mask = self.mask(plan.scene.image, seen, plan.box, plan.name, **more)
      prompts = dict(zip(('prompt', 'refine_prompt'), self.prompts(plan.name), strict=True))
      prompts = {k: v for k, v in prompts.items() if refining or k == 'prompt'}
      yield records.ObjectImage(
        scene=plan.scene.name,
        image=image,
        labels=plan.scene.labels,
        box=plan.box,
        mask_method=self.made.masks.method,
        mask=mask.pixels,
        mask_score=round(mask.score, 4),
        reason=mask.reason,
        refined=seen if refining else None,
        prompts=prompts | {'negative_prompt': ''},
      )

  @property
  def groups(self) -> dict[str, dict[str, Any]]:
    return {name: {} for name in self.made.objects}

  def settings(self) -> dict[str, Any]:
    made, pipeline = self.made, self.opened
    mark = command.fingerprint(pathlib.Path(made.weights), pipeline.kinds)
    return command.settings(made, self.scenes, pipeline.sampler, dict(pipeline=mark))

  def loaded(self, stop: Interrupt) -> tuple[int, Any]:
    made, dtype = self.made, programs.cast(self.made.dtype)
    params = weights.load_pipeline(made.weights, dtype=dtype).params
    devices = programs.Devices(params, made.batch, stop)
    first, second = (
      devices.program(functools.partial(self.painted, how)) for how in (self.first, self.second)
    )
    together = devices.size * (GROUPED if devices.size > 1 and made.refine.area == 'window' else 1)
    return together, functools.partial(self.make, first, second)


def box_sizes(made: ObjectOptions, height: int) -> tuple[int, int]:
  """The least and the largest side of a box in a scene of so many rows."""
  least, most = made.boxes
  return max(2, round(least * height)), max(2, round(most * height))


def pasted(plan: Plan, picture: np.ndarray) -> np.ndarray:
  """The scene with the box of a painted crop [S, S, 3], in about [-1, 1]."""
  box, image = plan.box, plan.scene.image.copy()
  crop = boxes.resized(style.pixels(picture), box.crop, box.crop)
  inner = slice(box.margin, box.margin + box.size)
  box.inside(image)[...] = crop[inner, inner]
  return image


def in_box(attention: np.ndarray, box: Box) -> np.ndarray:
  """Of a crop, [h, w] -> of its box, [m, m] in [0, 1]; all ones where there is none."""
  import cv2

  whole = cv2.resize(attention, (box.crop, box.crop), interpolation=cv2.INTER_LINEAR)
  inner = slice(box.margin, box.margin + box.size)
  most = whole[inner, inner].max()
  return whole[inner, inner] / most if most > 0 else np.ones((box.size, box.size), np.float32)


def box_window(box: Box, height: int, width: int, multiple: int) -> Window:
  """A square twice as large as the box around it, moved into the scene; sides are multiples.

  Moved rather than cut: there are few sizes then, and each is a program.
  """
  side = math.ceil(2 * box.size / multiple) * multiple
  side = min(side, height // multiple * multiple, width // multiple * multiple)
  ends = ((box.row, height), (box.column, width))
  starts = [min(max(at + (box.size - side) // 2, 0), most - side) for at, most in ends]
  return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)


def composite(plan: Plan, window: Window, picture: np.ndarray) -> np.ndarray:
  """The scene with the box of a refined window, uint8; it fades in over a sixteenth of the box.

  Outside the box no bit of the scene changes.
  """
  box, image = plan.box, plan.scene.image.copy()
  whole = np.zeros_like(image)
  whole[window] = picture
  edge = (np.arange(box.size) + 0.5) / max(8, box.size / 16)
  edge = np.minimum(1, np.minimum(edge, edge[::-1]))
  share = np.minimum(edge[:, None], edge)[..., None]
  inside = box.inside(image)
  inside[...] = np.rint(share * box.inside(whole) + (1 - share) * inside).astype(np.uint8)
  return image


def opened(made: ObjectOptions) -> Inpainter:
  """All configs, names and sizes, looked at before the first weight. Raises UserError."""
  check_objects(made)
  compute = Compute(programs.cast(made.dtype))
  folder = command.folder_of(made.weights, 'weights', WEIGHTS)
  pipeline = weights.open_pipeline(folder, sampler=made.sampler, compute=compute)
  if pipeline.unet.in_channels == pipeline.unet.out_channels:
    raise UserError(
      f'{folder} is of a model for text to image: its UNet has {pipeline.unet.in_channels} input '
      f'channels\n  ood takes one for inpainting, {2 * pipeline.vae.latent_channels + 1} channels'
    )
  named = pipeline.schedule, pipeline.sampler
  refine = made.refine
  first = command.sampler_of(made, *named, made.steps, 'steps')
  second = command.sampler_of(made, *named, refine.steps, 'refine.steps', refine.strength)
  passes = Pass(first, made.guidance, 1.0), Pass(second, refine.guidance, refine.strength)
  inpainter = Inpainter(made, scene_files.of(made.scenes), pipeline, *passes, masks.difference)
  check_sizes(inpainter)
  return dataclasses.replace(inpainter, mask=promptable.method(made.masks))


def check_objects(made: ObjectOptions) -> None:
  if not made.objects:
    raise UserError("config.objects is empty\n  it is names such as ('zebra', 'sofa')")
  if wrong := [name for name in made.objects if ',' in name or not name.strip()]:
    raise UserError(f"config.objects holds {wrong[0]!r}\n  it is a list: \"('zebra', 'sofa')\"")
  if twice := [name for name in made.objects if made.objects.count(name) > 1]:
    raise UserError(
      f'config.objects names {twice[0]!r} twice\n  raise config.count for more images'
    )
  if made.boxes[0] > made.boxes[1]:
    raise UserError(f'config.boxes is {made.boxes}\n  the least side is the first')
  if made.masks.prior and made.masks.method != 'difference':
    raise UserError('config.masks.prior is of the method difference alone\n  leave one of them out')


def check_sizes(inpainter: Inpainter) -> None:
  """Raises UserError for a scene in which a box, or the second pass, has no place."""
  made, multiple = inpainter.made, inpainter.nets.multiple
  command.check_side('config.size', made.size, multiple)
  for height, width in {inpainter.scenes.size(k) for k in range(len(inpainter.scenes))}:
    boxes.crop_ranges(height, width, box_sizes(made, height)[1])
    if made.refine.area == 'full':
      for side in (height, width):
        command.check_side(
          f'config.refine.area=full: the side of a scene of {height}x{width}', side, multiple
        )
    elif made.refine.area == 'window' and min(height, width) < multiple:
      raise UserError(
        f'scenes of {height}x{width} have no window of {multiple}\n  --config.refine.area=none'
      )


def main(arguments: Sequence[str]) -> int:
  return command.main(arguments, 'ood', __doc__, ObjectOptions, opened)
