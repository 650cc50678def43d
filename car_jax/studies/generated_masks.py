"""Does a small ControlNet follow masks? Trained, generated, and scored by a segmenter.

  python -m car_jax.studies.generated_masks --out runs/genval_tiny

A diffusion model of drawn scenes and its ControlNet are trained by configs/genval_tiny.py. From the
masks of test scenes that neither has seen it makes pictures, and a segmenter that knows drawn
scenes alone says what it sees in them: compared with their masks, with the masks of other scenes,
and, generated without the ControlNet, with the masks again. Written are results.json, table.md and
masks.png. Every training continues where it was stopped; what comes after them is made anew.
"""

import argparse
import contextlib
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from car_jax import ahead, errors, folders, loop, metrics, paths
from car_jax import config as configs
from car_jax.data import labels, memory
from car_jax.data import options as data_options
from car_jax.data.sources import Source
from car_jax.errors import UserError, command_line, exit_on_user_error
from car_jax.evaluate import checkpointed
from car_jax.generate import pipelines, samplers, style, weights
from car_jax.generate.captioned import Captioned, Drawn
from car_jax.generate.export import export
from car_jax.metrics import confusion_matrix
from car_jax.report import rendering
from car_jax.report import table as tables

CONFIG, SEGMENTER = 'configs/genval_tiny.py', 'configs/segmenters_street_scenes.py:deeplabv3plus'
BATCH, SHOWN, ZOOM, GAP = 8, 6, 3, 4
ROWS = {
  'drawn': 'drawn scenes, their masks',
  'generated': 'generated scenes, their masks',
  'shuffled': 'generated scenes, masks of other scenes',
  'without': 'generated without the ControlNet, their masks',
}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
  parser = errors.parser('car_jax.studies.generated_masks', __doc__)
  add = parser.add_argument
  add('--out', required=True, type=paths.local, help='folder of the runs and the results')
  add('--scenes', type=int, default=64, help='test scenes to generate (default 64)')
  add('--sampler-steps', type=int, default=50, help='of the sampler (default 50)')
  add('--scale', type=float, default=1.0, help='of guidance (default 1, none)')
  add('--seed', type=int, default=0, help='of the noise that pictures begin as (default 0)')
  return parser.parse_args(arguments)


@exit_on_user_error
def main(arguments: Sequence[str]) -> int:
  args = parse(arguments)
  if args.scenes < max(2, SHOWN):
    raise UserError(f'--scenes {args.scenes}; at least {max(2, SHOWN)} are compared')
  folders.check_writable(args.out)
  ahead.use_compilation_cache()
  times: dict[str, float] = {}
  for variant, folder in (('diffusion', 'weights'), ('controlnet', 'control')):
    with timed(times, variant):
      loop.train(changed(f'{CONFIG}:{variant}', args.out), args.out / variant)
    export(args.out / variant, args.out / folder)
  data: Any = data_options.of(changed(f'{CONFIG}:controlnet', args.out).data)
  with timed(times, 'segmenter'):
    loop.train(segmenter_config(data), args.out / 'segmenter', dataset=drawn_dataset(data))
  scenes, ids, texts = test_scenes(data, args.scenes)
  with timed(times, f'{2 * args.scenes} scenes generated'):
    generate = generator(args, data, ids, texts)
    made = {name: generate(strength) for name, strength in (('generated', 1.0), ('without', 0.0))}
  with timed(times, 'scores'):
    scores = scored(args.out / 'segmenter', scenes, made, ids)
  results = dict(arguments={k: str(v) for k, v in vars(args).items()}, scores=scores, seconds=times)
  text, plain = table(scores), json.dumps(results, indent=2) + '\n'
  drawn = {'masks.png': picture(ids, scenes, made)}
  folders.write(args.out, drawn | {'table.md': text, 'results.json': plain})
  print(f'{text}\n{args.out}/results.json, table.md, masks.png')
  return 0


@contextlib.contextmanager
def timed(times: dict[str, float], name: str) -> Iterator[None]:
  """Adds the seconds that this process computed inside, on all cores, to a dict."""
  start = time.process_time()
  yield
  times[name] = round(time.process_time() - start, 1)


def changed(name: str, out: pathlib.Path) -> Any:
  """A config that takes the frozen networks and their tokenizer from OUT."""
  config = configs.load(name)
  if config.method.name == 'controlnet':
    config.method.weights = config.data.tokenizer = str(out / 'weights')
  return config


def segmenter_config(data: Captioned) -> Any:
  config = configs.load(SEGMENTER)
  config.unlock()
  config.data = dict(name='drawn', size=data.size, batch=8, crop='random', mirror=True)
  config.steps, config.save_every, config.evals, config.report = 1_200, 300, {}, {}
  return configs.complete(config)


class Labelled(Source):
  """The drawn scenes as a segmenter learns them, with train ids."""

  def __init__(self, scenes: Drawn):
    self.scenes = scenes

  def __len__(self) -> int:
    return len(self.scenes)

  def __getitem__(self, k: int) -> dict[str, Any]:
    scene = self.scenes[k]
    return dict(image=scene.image, labels=labels.scored_train_ids(scene.labels), id=scene.name)


def drawn_dataset(data: Captioned) -> Any:
  splits: Any = {s: Labelled(data.split(s).scenes) for s in ('train', 'validation', 'test')}
  names, ignored = labels.CLASS_NAMES[: labels.SCORED], labels.IGNORED_TRAIN_ID
  kw: dict[str, Any] = dict(
    name='drawn', palette=labels.OFFICIAL_PALETTE, ignore_label=ignored, readers=1
  )
  return memory.dataset(splits, names, **kw)


def test_scenes(data: Captioned, count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
  """Pictures uint8 [N, H, W, 3], label ids [N, H, W] and captions of the first test scenes."""
  source, rng = data.split(f'test[:{count}]').scenes, np.random.default_rng(0)
  scenes, ids, texts = zip(*(data.example(source[k], rng) for k in range(count)), strict=True)
  return np.stack(scenes), np.stack(ids), list(texts)


def generator(
  args: argparse.Namespace, data: Captioned, ids: np.ndarray, texts: list[str]
) -> Callable[[float], np.ndarray]:
  """Of label ids and captions: strength of the ControlNet -> pictures uint8 [N, H, W, 3].

  The noise of each comes of its number alone. Every step adds noise (DDIM with eta 1), which covers
  the errors of a net as small as this; without it they add up.
  """
  pipeline = weights.load_pipeline(args.out / 'weights')
  control, params = weights.load('controlnet', args.out / 'control')
  nets = pipelines.Networks(pipeline.unet, pipeline.vae, pipeline.text_encoder, control)
  params = pipeline.params | {'controlnet': params}
  sampler = samplers.DDIM(pipeline.schedule, args.sampler_steps, eta=1.0)
  h, w = (side // pipeline.vae.factor for side in ids.shape[1:])

  @jax.jit
  def made(params: Any, strength: Any, tokens: Any, numbers: Any, hint: Any) -> Any:
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(args.seed), i))(numbers)
    shape = h, w, pipeline.vae.latent_channels
    drawn = lambda step: jax.vmap(
      lambda key: jax.random.normal(jax.random.fold_in(key, step), shape)
    )(keys)
    text = pipelines.context(nets, params, tokens)
    kw = dict(hint=hint, strength=strength)
    predict = pipelines.guided_noise(nets, params, text, args.scale, **kw)
    first = drawn(args.sampler_steps)
    latents = samplers.denoised(sampler, predict, first, noise=drawn)
    return pipelines.decoded(nets, params, latents)

  def pictures(strength: float) -> np.ndarray:
    parts = []
    for start in range(0, len(ids), BATCH):
      numbers = np.minimum(np.arange(start, start + BATCH), len(ids) - 1)
      tokens = pipeline.tokenizer([*[''] * BATCH, *(texts[i] for i in numbers)])
      hint = np.stack([style.HINTS[data.hint][0](ids[i]) for i in numbers])
      parts.append(style.pixels(made(params, np.float32(strength), tokens, numbers, hint)))
    return np.concatenate(parts)[: len(ids)]

  return pictures


def scored(
  run: pathlib.Path, scenes: np.ndarray, made: dict[str, np.ndarray], ids: np.ndarray
) -> dict[str, dict[str, float]]:
  """Row -> mIoU and pixel accuracy of what the segmenter sees against masks, ids [N, H, W]."""
  loaded = checkpointed.load(run, 'latest')
  logits = jax.jit(lambda state, image: loaded.method.logits(state, {'image': image}))

  def seen(pictures: np.ndarray) -> np.ndarray:
    parts = np.array_split(style.model_range(pictures), -(-len(pictures) // BATCH))
    return np.concatenate([np.argmax(logits(loaded.state, x), -1) for x in parts])

  truth, painted = labels.scored_train_ids(ids), seen(made['generated'])
  pairs = dict(drawn=(seen(scenes), truth), generated=(painted, truth))
  pairs |= dict(shuffled=(painted, np.roll(truth, 1, 0)), without=(seen(made['without']), truth))
  return {name: agreement(*pair) for name, pair in pairs.items()}


def agreement(seen: np.ndarray, truth: np.ndarray) -> dict[str, float]:
  """Classes seen [..] and true [..], where 255 is not scored."""
  how = dict(num_classes=labels.SCORED, ignore=labels.IGNORED_TRAIN_ID)
  matrix = metrics.confusion(seen, truth, **how)
  return {
    'miou': confusion_matrix.mean_iou(matrix),
    'accuracy': confusion_matrix.pixel_accuracy(matrix),
  }


def table(scores: dict[str, dict[str, float]]) -> str:
  """Markdown."""
  head = ('what the segmenter sees, and is compared with', 'mIoU', 'pixels right')
  rows = [
    (title, *(tables.share(scores[name][k]) for k in ('miou', 'accuracy')))
    for name, title in ROWS.items()
  ]
  return '\n'.join(tables.table('', head, rows).markdown()) + '\n'


def picture(ids: np.ndarray, scenes: np.ndarray, made: dict[str, np.ndarray]) -> bytes:
  """Rows: masks, drawn scenes, generated ones, those without ControlNet; a column is a scene."""
  masks = labels.colours(labels.scored_train_ids(ids))
  rows = [masks, scenes, made['generated'], made['without']]
  _, h, w, _ = masks.shape
  sheet = np.full((len(rows) * (h + GAP) - GAP, SHOWN * (w + GAP) - GAP, 3), 255, np.uint8)
  for i, row in enumerate(rows):
    for j in range(SHOWN):
      top, left = i * (h + GAP), j * (w + GAP)
      sheet[top : top + h, left : left + w] = row[j]
  return rendering.png(sheet.repeat(ZOOM, 0).repeat(ZOOM, 1))


if __name__ == '__main__':
  command_line(main)
