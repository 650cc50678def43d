"""What adaptation to another domain did, class by class: source-only, ABN, SAC, an oracle.

  python -m car_jax.studies.adaptation runs/night --data runs/night/data --out runs/night/study

RUNS holds a run, or runs seed0, seed1, .. of it, in each of the folders source, abn, sac and oracle
that it has. All are scored on their target's test images; results.json has every run's numbers,
tables.md and classes.svg their means and spread. views.png shows what SAC learns from.

Letters: R runs of one name, C classes, H x W pixels.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from car_jax.data import labels
from car_jax.errors import UserError, exit_on_user_error
from car_jax.metrics import confusion
from car_jax.studies import adaptation_plots

NAMES = ('source', 'abn', 'sac', 'oracle')


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m car_jax.studies.adaptation',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('runs', help='folder of the runs')
  add('--data', default='', help='folder of prepared data (default: where the runs found them)')
  add('--out', default='', help='folder of what is written (default: RUNS/study)')
  add('--split', default='test', help='images of the target to score (default test)')
  return parser.parse_args(arguments)


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> int:
  args = parse(arguments)
  runs, out = found_runs(pathlib.Path(args.runs)), pathlib.Path(args.out or f'{args.runs}/study')
  from train import use_compilation_cache

  use_compilation_cache()
  matrices, names = scored(runs, args.data, args.split)
  results = summary(matrices, names)
  out.mkdir(parents=True, exist_ok=True)
  (out / 'results.json').write_text(json.dumps(results, indent=1) + '\n')
  (out / 'tables.md').write_text(text := tables(results))
  (out / 'classes.svg').write_text(adaptation_plots.per_class(results))
  wrote = ['results.json', 'tables.md', 'classes.svg']
  if 'sac' in runs:
    picture = adaptation_plots.views(str(runs['sac'][0]), args.data)
    (out / 'views.png').write_bytes(picture)
    wrote.append('views.png')
  print(f'{text}\nwrote {", ".join(str(out / name) for name in wrote)}')
  return 0


def found_runs(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  """The runs of each name, by seed. Raises UserError for a folder without any."""
  is_run = lambda path: (path / 'checkpoints').is_dir()
  seed = lambda path: int(path.name.removeprefix('seed'))
  found = {}
  for name in NAMES:
    several = [p for p in (folder / name).glob('seed*') if is_run(p) and p.name[4:].isdigit()]
    if several or is_run(folder / name):
      found[name] = sorted(several, key=seed) or [folder / name]
  if not found:
    raise UserError(
      f'{folder} holds no run; looked for {", ".join(NAMES)}, and seed0, seed1, .. in them\n'
      f'  python train.py --config configs/sac_street_scenes.py:source '
      f'--workdir {folder}/source/seed0'
    )
  return found


def scored(
  runs: Mapping[str, Sequence[pathlib.Path]], data_dir: str, split: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
  """Confusion matrices [R, C, C] of each name on its data's split, and the classes' names."""
  from car_jax import sharding
  from car_jax.reliability import count, segmenters

  mesh, matrices, classes = sharding.make_mesh(), {}, {}
  spec = dict(split=split, data=dict(data_dir=data_dir) if data_dir else {})
  for name, paths in runs.items():
    found = []
    for path in paths:
      model = segmenters.Checkpoint(name, dict(path=str(path)), mesh)
      classes[model.classes(spec)[0]] = path
      print(f'{path}: {model.size(spec):,} images', file=sys.stderr, flush=True)
      tally = count.tallies(model.batches(spec), {'none': None}, count.How())['none']
      found.append(tally.pooled().confusion)
    matrices[name] = np.stack(found)
  if len(classes) > 1:
    first, second, *_ = classes.values()
    raise UserError(f'{first} and {second} have different classes; study them apart')
  return matrices, next(iter(classes))


def summary(matrices: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, Any]:
  """Everything that tables and figures show: IoU of every class and run, and means over classes.

  A class that is neither there nor said has none (null) and is left out of means.
  """
  kept = means_of(names)
  models = {}
  for name, found in matrices.items():
    each = [confusion.iou(m) for m in found]
    models[name] = {
      'iou': [_plain(values) for values in each],
      'accuracy': [confusion.pixel_accuracy(m) for m in found],
      'miou': {
        title: _plain([confusion.mean_iou(m, classes) for m in found])
        for title, classes in kept.items()
      },
    }
  return {'classes': list(names), 'models': models, 'gain': gains(models, next(iter(kept)))}


def means_of(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
  """Which classes are averaged, by the title of the mean; SYNTHIA's two for Cityscapes' classes."""
  everything = tuple(range(len(names)))
  found = {f'mean of {len(names)}': everything}
  if tuple(names) == labels.CLASS_NAMES[: labels.SCORED]:
    sixteen = tuple(k for k in everything if k not in labels.SYNTHIA_ABSENT)
    found['mean of 16'] = sixteen
    found['mean of 13'] = tuple(k for k in sixteen if k not in labels.SYNTHIA_RARE)
  return found


def gains(models: Mapping[str, Any], title: str) -> dict[str, list[float]]:
  """How far each adapted run is above the source-only run of its place, in mIoU."""
  if 'source' not in models:
    return {}
  base = models['source']['miou'][title]
  return {
    name: [a - b for a, b in zip(models[name]['miou'][title], base, strict=False)]
    for name in ('abn', 'sac')
    if name in models
  }


def tables(results: Mapping[str, Any]) -> str:
  """Markdown: per cent, mean over runs and their standard deviation, a row for each class."""
  models, classes = results['models'], results['classes']
  runs = ', '.join(f'{name} {len(m["iou"])}' for name, m in models.items())
  lines = [
    f'IoU on the target in per cent, mean ± standard deviation over runs ({runs}).',
    '',
    f'| class | {" | ".join(models)} |',
    '|---|' + '---:|' * len(models),
  ]
  for k, name in enumerate(classes):
    cells = [percent([values[k] for values in m['iou']]) for m in models.values()]
    lines.append(f'| {name} | {" | ".join(cells)} |')
  for title in next(iter(models.values()))['miou']:
    cells = [f'**{percent(m["miou"][title])}**' for m in models.values()]
    lines.append(f'| **{title}** | {" | ".join(cells)} |')
  lines.append('| pixels right | ' + ' | '.join(percent(m['accuracy']) for m in models.values()))
  lines[-1] += ' |'
  for name, found in results['gain'].items():
    each = ', '.join(f'{100 * g:+.1f}' for g in found)
    lines += ['', f'{name} over source: {100 * np.mean(found):+.1f} points of mIoU ({each}).']
  return '\n'.join(lines) + '\n'


def percent(values: Sequence[float | None]) -> str:
  known = [100 * v for v in values if v is not None]
  if not known:
    return '–'
  spread = f' ± {np.std(known, ddof=1):.1f}' if len(known) > 1 else ''
  return f'{np.mean(known):.1f}{spread}'


def _plain(values: Sequence[float]) -> list[float | None]:
  """JSON has no nan."""
  return [None if np.isnan(v) else float(v) for v in values]


if __name__ == '__main__':
  sys.exit(main())
