"""What adaptation to another domain did, class by class: source-only, ABN, SAC, an oracle.

  python -m car_jax.studies.adaptation runs/snow --data runs/snow/data --out runs/snow/study

RUNS holds a run, or runs seed0, seed1, .. of it, in each of the folders source, abn, sac and oracle
that it has. All are scored on their target's test images; results.json has every run's numbers,
tables.md and classes.svg their means and spread. A gain is between runs of the same seed folder.
views.png shows what SAC learns from. report.html has all of it on one page, and how the pseudo
labels went.

Letters: C classes, T views of each image, H x W pixels.
"""

import argparse
import json
import pathlib
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from car_jax import errors, folders, saved_steps, writers
from car_jax.data import labels
from car_jax.errors import UserError, exit_on_user_error, reading
from car_jax.evaluate import census, report, tables
from car_jax.methods.train_state import full_size
from car_jax.metrics import confusion_matrix
from car_jax.paths import local
from car_jax.report import adaptation as pages
from car_jax.report import rendering, svg
from car_jax.report.adaptation import COLUMNS, TITLES, differences, unpaired
from car_jax.report.table import prose


class Scored(NamedTuple):
  """matrices: [C, C] by name and run; palette [C, 3]; images: how many were scored.

  A run is named by its folder below its model's, '.' where it is the model's folder itself.
  """

  matrices: dict[str, dict[str, np.ndarray]]
  classes: tuple[str, ...]
  palette: tuple[Any, ...]
  images: int
  remarks: tuple[str, ...] = ()  # on the labels


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
  parser = errors.parser('car_jax.studies.adaptation', __doc__)
  add = parser.add_argument
  add('runs', help='folder of the runs')
  add('--data', default='', help='folder of prepared data (default: where the runs found them)')
  add('--out', default='', help='folder of what is written (default: RUNS/study)')
  add('--split', default='test', help='images of the target to score (default test)')
  return parser.parse_args(arguments)


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> int:
  args = parse(arguments)
  runs, out = runs_in(local(args.runs)), local(args.out or f'{args.runs}/study')
  folders.check_writable(out)
  from car_jax.ahead import use_compilation_cache

  use_compilation_cache()
  seen = views(str(runs['sac'][0]), args.data) if 'sac' in runs else b''
  study = scored(runs, args.data, args.split)
  results = summary(study.matrices, study.classes)
  results['remarks'] = list(study.remarks)
  results['pseudo_labels'] = pseudo_labels(runs.get('sac', ()))
  command = shlex.join(sys.argv[1:] if arguments is None else arguments)
  about = pages.About(
    split=args.split,
    images=study.images,
    palette=study.palette,
    command=f'python -m car_jax.studies.adaptation {command}',
    configs=tables.plain(first_configs(runs)),
    created=time.strftime('%Y-%m-%d %H:%M'),
    versions=report.versions(),
  )
  print(f'{markdown(results)}\nreport: {write(out, results, about, seen)}')
  return 0


def write(
  out: pathlib.Path, results: Mapping[str, Any], about: pages.About, views: bytes
) -> pathlib.Path:
  """Writes the study's files, each whole, and returns the path of its page, the last."""
  contents: dict[str, str | bytes] = {
    **({'views.png': views} if views else {}),
    'results.json': json.dumps(results, indent=1, allow_nan=False) + '\n',
    'tables.md': markdown(results),
    'classes.svg': svg.standalone(pages.per_class(results)),
    'report.html': pages.page(results, about, views),
  }
  folders.write(out, contents)
  return out / 'report.html'


def first_configs(runs: Mapping[str, Sequence[pathlib.Path]]) -> dict[str, dict[str, Any]]:
  """What the first run of each name was trained with."""
  from car_jax.evaluate import checkpointed

  return {name: checkpointed.read_config(paths[0]).to_dict() for name, paths in runs.items()}


def runs_in(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  """The runs of each name, by seed. Raises UserError for a folder without any."""
  every = {name: folders.trainings(folder / name) for name in TITLES}
  runs = {name: of for name, of in every.items() if all(map(saved_steps.is_run, of))}
  if not runs:
    raise UserError(
      f'{folder} holds no run; looked for {", ".join(TITLES)}, and seed0, seed1, .. in them\n'
      f'  car-jax train --config configs/sac_street_scenes.py:source '
      f'--workdir {folder}/source/seed0'
    )
  return runs


def scored(runs: Mapping[str, Sequence[pathlib.Path]], data_dir: str, split: str) -> Scored:
  """Confusion matrices of each name's runs on its data's split. Raises UserError."""
  from car_jax import sharding
  from car_jax.reliability import count, segmenters
  from car_jax.reliability.study_options import ImageSet, Model

  mesh, classes = sharding.make_mesh(), {}
  matrices: dict[str, dict[str, np.ndarray]] = {}
  palette: tuple[Any, ...] = ()
  images, remarks = 0, {}
  scored = ImageSet(split=split, data=dict(data_dir=data_dir) if data_dir else {})
  for name, paths in runs.items():
    matrices[name] = {}
    for path in map(pathlib.Path, paths):
      model = segmenters.Checkpoint(Model(str(path), name=name), mesh)
      of = model.images(scored)
      classes[of.names], images, palette = path, of.size, of.palette
      print(f'{path}: {images:,} images', file=sys.stderr, flush=True)
      cell = count.cells(model.batches(scored), (), {'none': None}, count.How())['none']
      remarks[split] = census.remark(count.census_of(cell), of.names)
      matrices[name]['.' if path.name == name else path.name] = cell.total(count.PIXELS).confusion
  if len(classes) > 1:
    first, second, *_ = classes.values()
    raise UserError(f'{first} and {second} have different classes; study them apart')
  return Scored(matrices, next(iter(classes)), palette, images, tuple(census.lines(remarks)))


def pseudo_labels(paths: Sequence[pathlib.Path]) -> list[dict[str, Any]]:
  """What each SAC run that has a metrics.jsonl logged of its pseudo labels, at each logged step.

  Each number is a mean over the steps since the line before; the classes' are those of the last.
  """
  logs = []
  for path in paths:
    log = path / 'metrics.jsonl'
    if lines := [line for _, line in writers.records(log) if 'kept' in line]:
      with reading(log, 'the log of an adaptation'):
        logs.append({'run': path.name} | _logged(lines))
  return logs


def _logged(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  last = lines[-1]
  of_class = lambda key: _plain(
    [last[f'{key}/{c}'] for c in range(len(last)) if f'{key}/{c}' in last]
  )
  return {
    'step': [line['step'] for line in lines],
    'kept': _plain([line['kept'] for line in lines]),
    'agreement': _plain([line['teacher/agreement'] for line in lines]),
    'distance': _plain([line['teacher/distance'] for line in lines]),
    'class_kept': of_class('kept'),
    'class_threshold': of_class('threshold'),
  }


def summary(
  matrices: Mapping[str, Mapping[str, np.ndarray]], names: Sequence[str]
) -> dict[str, Any]:
  """Everything that tables and figures show: IoU of every class and run, and means over classes.

  Numbers are in the order of `runs`, the runs' names. A class that is neither there nor said has
  none (null) and is left out of means.
  """
  kept = means_of(names)
  models = {}
  for name, runs in matrices.items():
    confusions = [*runs.values()]
    each = [confusion_matrix.iou(m) for m in confusions]
    models[name] = {
      'runs': [*runs],
      'iou': [_plain(values) for values in each],
      'accuracy': [confusion_matrix.pixel_accuracy(m) for m in confusions],
      'miou': {
        title: _plain([confusion_matrix.mean_iou(m, classes) for m in confusions])
        for title, classes in kept.items()
      },
    }
  return {'classes': list(names), 'models': models, 'gain': gains(models, next(iter(kept)))}


def means_of(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
  """Which classes are averaged, by the title of the mean; SYNTHIA's two for Cityscapes' classes."""
  everything = tuple(range(len(names)))
  means = {f'mean of {len(names)}': everything}
  if tuple(names) == labels.CLASS_NAMES[: labels.SCORED]:
    means |= {f'mean of {len(classes)}': classes for classes in labels.SYNTHIA_MEANS}
  return means


def gains(models: Mapping[str, Any], title: str) -> dict[str, list[float]]:
  """How far each adapted run is above the source-only run of its name, in mIoU, where any is."""
  if 'source' not in models:
    return {}
  adapted = [name for name in ('abn', 'sac') if name in models]
  by_name = {name: differences(models[name], models['source'], title) for name in adapted}
  return {name: values for name, values in by_name.items() if values}


def markdown(results: Mapping[str, Any]) -> str:
  """The table of classes, and each gain run by run."""
  models = results['models']
  runs = ', '.join(f'{TITLES[name]} {len(m["iou"])}' for name, m in models.items())
  lines = [
    f'IoU on the target in per cent, mean ± standard deviation over runs ({runs}).',
    '',
    *pages.classes(results).markdown(),
  ]
  for name, points in results['gain'].items():
    each = ', '.join(f'{100 * g:+.1f}' for g in points)
    mean = f'{100 * np.mean(points):+.1f} points of mIoU'
    lines += ['', f'{TITLES[name]} over source-only: {mean} ({each}).']
  remarks = results.get('remarks') or []
  lines += [part for line in (*unpaired(models), *remarks) for part in ('', prose(line))]
  return '\n'.join(lines) + '\n'


def _plain(values: Iterable[float]) -> list[float | None]:
  """JSON has no nan."""
  return [float(v) if np.isfinite(v) else None for v in values]


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
    maps = {
      name: rendering.class_map(teacher[name][k], palette) for name in ('predicted', 'labels')
    }
    truth = batch['target_label'][k]
    truth = rendering.class_map(np.where(truth < len(palette), truth, none), palette)
    seen, noisy = (rendering.grey(batch[key][k]) for key in ('target', 'student'))
    row = rendering.strip([seen, maps['predicted'], maps['labels'], noisy, truth])
    gap = 12 if k and k % int(batch['views'][k]) == 0 else 4
    rows += [np.full((gap, row.shape[1], 3), 255, np.uint8)] * bool(k) + [row]
  return rendering.png(with_titles(np.concatenate(rows)))


def training_batch(config: Any, data_dir: str, images: int) -> tuple[dict[str, np.ndarray], Any]:
  """One batch of the first `images` target images of a run of this config, and the palette.

  However many images the run's own batches have, and however many devices share them.
  """
  from car_jax.data import adaptation, compact, opening

  data = config.data.to_dict()
  data['data_dir'] = data_dir or data['data_dir']
  data['source']['data_dir'] = data_dir or data['source'].get('data_dir', '')
  data['target']['groups'], data['batch'] = images, 1
  opened = opening.open_dataset(data)
  stream = opened.split(data['train'])
  batch = adaptation.Steps(stream, config.seed, 0, 0, 1)[0]
  return compact.expanded(batch), opened.info.palette


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


if __name__ == '__main__':
  sys.exit(main())
