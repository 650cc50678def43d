"""The adaptation study's figures: IoU of each class, how pseudo labels went, what SAC learns from.

Letters: T views of each image, H x W pixels.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from car_jax.evaluate import pictures, svg
from car_jax.methods.train_state import full_size
from car_jax.reliability import charts

TITLES = {'source': 'source-only', 'abn': 'ABN', 'sac': 'SAC', 'oracle': 'oracle'}
ROW, TOP, LEFT, RIGHT = 22, 34, 110, 500  # pixels
COLUMNS = {
  'teacher sees': 'A window on a target image, zoomed and perhaps flipped.',
  "teacher's map": 'The class that the teacher finds likeliest in this view alone.',
  'pseudo labels': 'What is left once the views are combined and the unsure pixels dropped (grey).',
  'student sees': 'The same view with photometric noise; the student learns the labels on it.',
  'truth': 'For the eye only; nothing is learnt from it. Grey: unlabelled, or beyond the image.',
}
# Key in the pseudo labels' numbers, name of the axis, and what a value is multiplied by.
CURVES = (
  ('kept', 'pixels with a pseudo label, per cent', 100),
  ('agreement', 'of these the student says too, per cent', 100),
  ('distance', 'distance of teacher and student', 1),
)


def per_class(results: Mapping[str, Any]) -> str:
  """SVG: per class a dot for each model at its mean IoU, on a line from least to most."""
  models, classes = results['models'], results['classes']
  title = next(iter(next(iter(models.values()))['miou']))
  rows = [
    (name, {n: [v[k] for v in m['iou']] for n, m in models.items()})
    for k, name in enumerate(classes)
  ]
  rows.append((title, {n: m['miou'][title] for n, m in models.items()}))
  bottom = TOP + ROW * len(rows)
  drawing = svg.Drawing(RIGHT + 20, bottom + 40, 'IoU of each class on the target')
  axis = svg.Axis(0, 100, LEFT, RIGHT)
  drawing.x_axis(axis, TOP, bottom, 'IoU on the target, per cent')
  for i, name in enumerate(models):
    drawing.dot(LEFT + 100 * i, 14, svg.subject_colour(i))
    drawing.text(LEFT + 100 * i + 9, 18, TITLES[name])
  for r, (name, by_model) in enumerate(rows):
    middle = TOP + ROW * (r + 0.5)
    drawing.text(LEFT - 8, middle + 4, name, 'end', weight=600 if name == title else 400)
    for i, (model, values) in enumerate(by_model.items()):
      tip = f'{TITLES[model]}, {name}'
      _mark(drawing, axis, values, middle + 4 * (i - (len(by_model) - 1) / 2), i, tip)
  return drawing.render()


def _mark(drawing: svg.Drawing, axis: svg.Axis, values, y: float, i: int, tip: str) -> None:
  known = [100 * v for v in values if v is not None]
  if known:
    mean, colour = float(np.mean(known)), svg.subject_colour(i)
    drawing.line(axis(min(known)), y, axis(max(known)), y, colour, 1.5)
    drawing.dot(axis(mean), y, colour, 3, tip=f'{tip}: {mean:.1f}')


def run_styles(results: Mapping[str, Any]) -> dict[str, charts.Style]:
  """How each SAC run's line is drawn: in the colours after those of the models."""
  runs = [log['run'] for log in results['pseudo_labels']]
  return {k: v for k, v in charts.styles([*results['models'], *runs]).items() if k in runs}


def curves(results: Mapping[str, Any]) -> list[str]:
  """An SVG for each of CURVES over the steps, a line for each SAC run that has any."""
  logs, styles = results['pseudo_labels'], run_styles(results)
  last = max(run['step'][-1] for run in logs)
  return [_curve(logs, styles, last, *curve) for curve in CURVES]


def _curve(
  logs: Sequence[Mapping[str, Any]],
  styles: Mapping[str, charts.Style],
  last: int,
  key: str,
  name: str,
  scale: float,
) -> str:
  lines = {r['run']: [math.nan if v is None else scale * v for v in r[key]] for r in logs}
  known = [v for values in lines.values() for v in values if not math.isnan(v)] or [0.0, 1.0]
  low, high = min(known), max(known)
  margin = 0.05 * (high - low or 1)
  drawing = charts.Chart(400, 250, name)
  x = svg.Axis(0, last, 44, 388, ticks=4)
  y = svg.Axis(0 if 0 <= low < 0.5 * high else low - margin, high + margin, 208, 26, ticks=4)
  drawing.axes(x, y, 'step', name)
  for run, values in lines.items():
    steps = next(r['step'] for r in logs if r['run'] == run)
    points = [(x(s), y(v)) for s, v in zip(steps, values, strict=True)]
    drawing.path(points, styles[run].colour, 1.75, styles[run].dash)
    for at, s, v in zip(points, steps, values, strict=True):
      drawing.mark(*at, styles[run], radius=3, tip=f'{run}, step {s:,}: {v:.4g}')
  return drawing.render()


def views(path: str, data_dir: str, images: int = 2) -> bytes:
  """PNG of a run's first target images: a row for each view, the columns COLUMNS.

  What the teacher does not label is grey; so is the truth where the view leaves the image.
  """
  from car_jax.evaluate import checkpointed

  loaded = checkpointed.load(path)
  batch, palette = training_batch(loaded.config, data_dir, images)
  teacher = labelled(loaded, batch)
  none, rows = -1, []
  for k in range(len(batch['target'])):
    maps = {name: pictures.class_map(teacher[name][k], palette) for name in ('predicted', 'labels')}
    truth = batch['target_label'][k]
    truth = pictures.class_map(np.where(truth < len(palette), truth, none), palette)
    seen, noisy = (pictures.grey(batch[key][k]) for key in ('target', 'student'))
    row = pictures.strip([seen, maps['predicted'], maps['labels'], noisy, truth])
    gap = 12 if k and k % int(batch['views'][k]) == 0 else 4
    rows += [np.full((gap, row.shape[1], 3), 255, np.uint8)] * bool(k) + [row]
  return pictures.png(with_titles(np.concatenate(rows)))


def training_batch(config: Any, data_dir: str, images: int) -> tuple[dict[str, np.ndarray], Any]:
  """One batch of the first `images` target images of a run of this config, and the palette.

  However many images the run's own batches have, and however many devices share them.
  """
  from car_jax.data import adaptation, opening

  data = config.data.to_dict()
  data['data_dir'] = data_dir or data['data_dir']
  data['source']['data_dir'] = data_dir or data['source'].get('data_dir', '')
  data['target']['groups'], data['batch'] = images, 1
  opened = opening.open_dataset(data)
  stream = opened.split(data['train'])
  return adaptation.Steps(stream, config.seed, 0, 0, 1)[0], opened.info.palette


def labelled(loaded: Any, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The class that the teacher says of each view [T, H, W], and its labels, -1 for none."""
  method, state = loaded.method, loaded.state

  @jax.jit
  def both(state: Any, batch: Any) -> dict[str, jax.Array]:
    out = method.net.apply(state.teacher.variables, batch['target'], train=False)
    return {'predicted': full_size(out).argmax(-1), 'labels': method.labelled(state, batch)[0]}

  return jax.device_get(both(state, {k: v for k, v in batch.items() if k != 'views'}))


def with_titles(picture: np.ndarray) -> np.ndarray:
  """The columns' names above a picture of as many strips."""
  import cv2

  head = np.full((18, picture.shape[1], 3), 255, np.uint8)
  for k, title in enumerate(COLUMNS):
    at = (k * (picture.shape[1] + 4) // len(COLUMNS) + 2, 13)
    cv2.putText(head, title, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (30, 30, 30), 1, cv2.LINE_AA)
  return np.concatenate([head, picture])
