"""Both toy figures of CAR (arXiv 2006.13144, section 5.1), their numbers and the pictures.

  python -m car_jax.studies.toy_regression --out runs/toy

Figure 1: three runs at pi 0.9, sigma 0.03, with and without the calibration loss. Figure 2: the
exact log likelihood of G's draws over training, 9 laws x 5 seeds with each weight. Every finished
law is kept in the folder: the same command continues a stopped study and redraws a finished one.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from car_jax import arrays as array_files
from car_jax import errors, files, folders, paths
from car_jax.errors import UserError, command_line, exit_on_user_error, nearest
from car_jax.report import rendering, svg
from car_jax.report.figure import Axis, Figure, Point, Series, Style, of_values
from car_jax.report.page import render
from car_jax.report.table import Table, table

LAWS = [(pi, sigma) for pi in (0.5, 0.6, 0.9) for sigma in (0.01, 0.02, 0.03)]
# Figure 1's law and seeds: the published one, and the law's first two of figure 2.
FIGURE_1 = ((0.9, 0.03), (999, 8000, 8001))
FIGURES = ('1', '2', 'all')
SHOWN = (500, 1000, 2000, 3000, 5000)  # steps in the tables
# Log likelihood at SHOWN and the share of the upper branch at x = 0.2 in single runs of the
# published code, by law and weight.
MEASURED = {
  (0.9, 0.03, 1.0): ((-8.7, -0.2, 1.2, 2.0, 2.0), 0.900),
  (0.9, 0.03, 0.0): ((-18, -8.4, -6.3, -2.0, 1.2), None),
  (0.6, 0.02, 1.0): ((-14, -3.5, 0.9, 1.8, 2.0), 0.596),
  (0.6, 0.02, 0.0): ((-25, -18, -18, -3.3, 1.8), None),
}


def parse(arguments: list[str]) -> argparse.Namespace:
  parser = errors.parser('car_jax.studies.toy_regression', __doc__)
  add = parser.add_argument
  add('--out', required=True, help='folder of the runs, report.html, results.json, tables.md')
  add('--seeds', type=int, default=5, help='runs per law (default 5)')
  add('--steps', type=int, default=5000, help='adversarial steps (default 5000)')
  add('--calibration-steps', type=int, default=1500, help="F's steps before (default 1500)")
  add('--figure', default='all', help='1, 2 or all (default)')
  add('--workers', type=int, default=0, help='laws trained side by side (default: one per core)')
  return parser.parse_args(arguments)


@exit_on_user_error
def main(arguments: list[str]) -> int:
  args = parse(arguments)
  if args.figure not in FIGURES:
    raise UserError(f'no --figure {args.figure!r}\n{nearest(args.figure, FIGURES)}')
  for name in ('seeds', 'steps'):
    if getattr(args, name) < 1:
      raise UserError(f'--{name} is {getattr(args, name)}, below 1')
  if args.calibration_steps < 0:
    raise UserError(f'--calibration-steps is {args.calibration_steps}, below 0')
  if args.steps % 10:
    near = max(10, round(args.steps / 10) * 10)
    raise UserError(
      f'--steps is {args.steps}; G is looked at in every 10th step\n  use --steps {near}'
    )
  out = paths.local(args.out)
  prepare(out, args)
  try:
    train_missing(out, args)
  except KeyboardInterrupt:
    print('stopped; the same command continues', file=sys.stderr)
    return 130
  draw(out, args)
  return 0


def prepare(out: pathlib.Path, args: argparse.Namespace) -> None:
  """Makes the folder, or checks that what it holds was trained with the same settings."""
  wanted = {k: getattr(args, k) for k in ('seeds', 'steps', 'calibration_steps')}
  path = out / 'study.json'
  folders.check_writable(out)
  if path.exists():
    previous = files.read_json(path, keys=tuple(wanted), mend='name another --out')
    if previous != wanted:
      was = ' '.join(f'--{k.replace("_", "-")} {v}' for k, v in previous.items())
      raise UserError(
        f'{out} holds a study with {was}\n  repeat these to continue it, or use another --out'
      )
    return
  (out / 'runs').mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(wanted) + '\n')


def run_file(out: pathlib.Path, law: tuple[float, float]) -> pathlib.Path:
  return out / 'runs' / f'pi{law[0]}_sigma{law[1]}.npz'


def portrait_file(out: pathlib.Path) -> pathlib.Path:
  return out / 'runs' / 'figure1.npz'


def seeds_of(law: tuple[float, float], count: int) -> list[int]:
  """A law's seeds: no two runs of the study start alike."""
  return [1000 * LAWS.index(law) + k for k in range(count)]


def train_missing(out: pathlib.Path, args: argparse.Namespace) -> None:
  """Trains what has no file yet, `workers` laws at a time."""
  missing = [law for law in LAWS if args.figure != '1' and not run_file(out, law).exists()]
  alone = args.figure != '2' and not portrait_file(out).exists()
  if not missing and not alone:
    return
  import jax

  from car_jax import progress
  from car_jax.studies import toy_runs

  runs_left = len(missing) * args.seeds + alone * len(FIGURE_1[1])
  per_run = args.calibration_steps + len(toy_runs.WEIGHTS) * args.steps
  meter, lock = progress.line(runs_left * per_run, what='run-steps'), threading.Lock()

  def count(k: int) -> None:
    with lock:
      meter(k)

  runs = toy_runs.Runs(args.calibration_steps, args.steps, count)

  def train(law: tuple[float, float]) -> None:
    save(run_file(out, law), runs.train([law] * args.seeds, seeds_of(law, args.seeds))[0])

  def portrait() -> dict[str, np.ndarray]:
    return toy_runs.portrait(runs, *FIGURE_1)

  jobs: list[Any] = [lambda law=law: train(law) for law in missing]
  if alone:  # the last: it is the shortest
    jobs.append(lambda: save(portrait_file(out), portrait()))
  # A law's products are too small for two cores; an accelerator takes one law at a time.
  cores = (os.cpu_count() or 1) if jax.default_backend() == 'cpu' else 1
  side_by_side(jobs, args.workers or cores, runs.stop)


def side_by_side(jobs: list[Any], workers: int, stop: threading.Event) -> None:
  """Runs the jobs in threads; the first error, or Ctrl-C, stops the others at their next chunk."""
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    waiting = [pool.submit(job) for job in jobs]
    try:
      for done in concurrent.futures.as_completed(waiting):
        done.result()
    except BaseException:
      stop.set()
      pool.shutdown(wait=False, cancel_futures=True)
      raise


def save(path: pathlib.Path, arrays: dict[str, Any]) -> None:
  """All or nothing: a file that is there is whole."""
  with folders.whole(path) as part, part.open('wb') as file:
    np.savez_compressed(file, **arrays)


def load(path: pathlib.Path) -> dict[str, np.ndarray]:
  """What `save` wrote. Raises UserError, by path."""
  return array_files.read(path, 'delete it: the same command makes it again')


def draw(out: pathlib.Path, args: argparse.Namespace) -> None:
  results: dict[str, Any] = {}
  tables: list[Table] = []
  curves: list[Figure] = []
  numbers: dict[str, np.ndarray] = {}
  if args.figure != '1':
    laws = {law: load(run_file(out, law)) for law in LAWS}
    results['figure2'] = over_all_runs(laws)
    results['laws'] = [by_law(law, numbers) for law, numbers in laws.items()]
    tables += [table_of_medians(results['figure2']), table_of_laws(results['laws'])]
    curves = likelihood(results['figure2'])
  if args.figure != '2':
    numbers = load(portrait_file(out))
    results['figure1'] = by_law(FIGURE_1[0], numbers)
    tables.append(table_of_laws([results['figure1']]))
  text = '\n\n'.join('\n'.join([f'{t.title}:', '', *t.markdown()]) for t in tables)
  texts = {
    'results.json': json.dumps(results, indent=1) + '\n',
    'tables.md': text + '\n',
    **({'toy_figure2.svg': svg.standalone(curves[0])} if curves else {}),
    'report.html': page(tables, numbers, curves),
  }
  folders.write(out, texts)
  print(f'{text}\n\nreport: {out / "report.html"}')


def over_all_runs(laws: dict[tuple[float, float], dict[str, np.ndarray]]) -> dict[str, Any]:
  """Median and quartiles over all runs at every look, by weight.

  `lost`: runs whose G draws fewer than 1 % from one branch at x = 0.2; `share_error`: the median
  of |P(upper) - pi| there; `crosses_zero`: see first_above.
  """
  curves = np.concatenate([n['log_likelihood'] for n in laws.values()], axis=1)  # [W, R, T]
  low, median, high = np.quantile(curves, [0.25, 0.5, 0.75], axis=1)  # [W, T]
  upper = np.concatenate([n['upper'] for n in laws.values()], axis=1)  # [W, R]
  pi = np.concatenate([np.full(n['upper'].shape[1], law[0]) for law, n in laws.items()])
  step = next(iter(laws.values()))['step']
  rounded = lambda a: np.round(a, 4).tolist()
  return dict(
    step=step.tolist(),
    runs=curves.shape[1],
    curves={
      weight: dict(
        lost=int(np.sum((upper[w] < 0.01) | (upper[w] > 0.99))),
        share_error=round(float(np.median(np.abs(upper[w] - pi))), 4),
        median=rounded(median[w]),
        low=rounded(low[w]),
        high=rounded(high[w]),
        crosses_zero=first_above(step, median[w]),
      )
      for w, weight in enumerate(('1', '0'))
    },
  )


def shown(step: Any) -> list[int]:
  """The steps of the tables: those of SHOWN that were reached, and the last."""
  return [s for s in SHOWN if s < step[-1]] + [int(step[-1])]


def first_above(step: np.ndarray, curve: np.ndarray, window: int = 5) -> int | None:
  """The step from which `window` looks in a row are above zero; None when there is none."""
  above = np.convolve(curve > 0, np.ones(window), 'valid') == window
  return int(step[np.argmax(above)]) if above.any() else None


def by_law(law: tuple[float, float], numbers: dict[str, np.ndarray]) -> dict[str, Any]:
  """Medians over the runs of a law, and of the log likelihood at the steps of the tables."""
  pi, sigma = law
  at = shown(numbers['step'])
  places = [int(np.argmin(np.abs(numbers['step'] - s))) for s in at]
  median = np.median(numbers['log_likelihood'], axis=1)[:, places]  # [W, shown]
  return dict(
    pi=pi,
    sigma=sigma,
    runs=numbers['log_likelihood'].shape[1],
    at=at,
    log_likelihood={w: np.round(median[k], 2).tolist() for k, w in enumerate(('1', '0'))},
    upper={w: np.round(numbers['upper'][k], 3).tolist() for k, w in enumerate(('1', '0'))},
    mean=round(float(np.median(numbers['mean'])), 3),
    mean_exact=round((2 * pi - 1) * 0.5, 3),
    nll=round(float(np.median(numbers['nll'])), 3),
  )


def table_of_medians(medians: dict[str, Any]) -> Table:
  """Median [quartiles] of all runs at the steps of the tables, by weight."""
  at = shown(medians['step'])
  head = ['weight', 'a branch lost', '|P(upper) - pi|', 'stays above 0 from']
  rows = []
  for weight, c in medians['curves'].items():
    places = [int(np.argmin(np.abs(np.array(medians['step']) - s))) for s in at]
    cells = [f'{c["median"][i]:.2f} [{c["low"][i]:.2f}, {c["high"][i]:.2f}]' for i in places]
    rows.append([weight, c['lost'], f'{c["share_error"]:.3f}', c['crosses_zero'], *cells])
  title = f'Log likelihood, median [quartiles] over {medians["runs"]} runs of 9 laws'
  return table(title, [*head, *(f'step {s:,}' for s in at)], rows)


def table_of_laws(rows: list[dict[str, Any]]) -> Table:
  """Each law with each weight, and below it the published code's single run."""
  at, runs = rows[0]['at'], rows[0]['runs']
  head = ['pi', 'sigma', 'weight', 'F(0.2) (exact)', "F's loss", 'P(upper | x = 0.2)']
  cells = []
  for row in rows:
    for weight in ('1', '0'):
      upper = ' '.join(f'{u:.3f}' for u in row['upper'][weight])
      law = [row['pi'], row['sigma'], weight]
      values = [f'{v:.2f}' for v in row['log_likelihood'][weight]]
      exact = f'{row["mean"]:.3f} ({row["mean_exact"]:.3f})'
      cells.append([*law, exact, f'{row["nll"]:.3f}', upper, *values])
      if known := MEASURED.get((row['pi'], row['sigma'], float(weight))):
        published = dict(zip(SHOWN, known[0], strict=True))
        values = [f'{published[s]:.2f}' if s in published else '' for s in at]
        share = '' if known[1] is None else f'{known[1]:.3f}'
        law[-1] = f'{weight} published code'
        cells.append([*law, '', '', share, *values])
  title = f'One law at a time ({runs} run{"s" * (runs > 1)} each, medians; upper: each run)'
  return table(title, [*head, *(f'{s:,}' for s in at)], cells)


STYLES = {'1': Style('s0'), '0': Style('s1', dash='7 4')}
NAMES = {'1': 'with calibration loss (weight 1)', '0': 'without (weight 0)'}
MEAN = Style('ink', width=2)
X, Y = Axis('x', 0, 1), Axis('y', -0.6, 0.6)


def page(tables: Sequence[Table], numbers: Mapping[str, Any], curves: Sequence[Figure]) -> str:
  """The whole document. numbers: of `toy_runs.portrait`, {} without figure 1."""
  return render(
    'toy.html.j2',
    kicker='CAR in one dimension',
    title='Two branches, with and without the calibration loss',
    tables=tables,
    portraits=portraits(numbers) if numbers else {},
    curves=curves,
  )


def portraits(numbers: Mapping[str, Any]) -> dict[str, list[Figure]]:
  """By run: the data with F, then with each weight G's draws and their mean over D's opinion."""
  out = {}
  for r, seed in enumerate(numbers['seeds']):
    f = Series('F', MEAN, _inside(numbers['x'], numbers['f'][r]))
    bins = [np.linspace(0, 1, 81), np.linspace(-0.6, 0.6, 97)]
    density, *_ = np.histogram2d(numbers['data_x'], numbers['data_y'], bins)
    figures = [_panel('data and calibration net', [f], np.log1p(density.T))]
    for w, name in enumerate(NAMES.values()):
      mean = _inside(numbers['mean_x'], numbers['sample_mean'][w, r])
      draw = _inside(numbers['x'], numbers['sample'][w, r])
      dots = Style('ink', 'circle', hollow=True)
      series = [
        Series('one draw', dots, draw, line=False),
        f,
        Series('mean of 1000 draws', Style('s0'), mean),
      ]
      figures.append(_panel(name, series, numbers['judged'][w, r]))
    out[f'seed {seed}'] = figures
  return out


def _inside(x: np.ndarray, y: np.ndarray) -> tuple[Point, ...]:
  """Without the points beyond the picture; a net that diverged has some."""
  return tuple(p for p in of_values(x, y) if Y.low <= p.y <= Y.high)


def _panel(title: str, series: Sequence[Series], behind: np.ndarray) -> Figure:
  """behind: [y, x], drawn from dark (least) to bright (most)."""
  scaled = (behind - behind.min()) / (np.ptp(behind) or 1)
  picture = rendering.png(rendering.heat(scaled[::-1]))
  return Figure(title, X, Y, tuple(series), background=picture, size=(340, 300))


def likelihood(medians: Mapping[str, Any]) -> list[Figure]:
  """Median and quartiles of the exact log likelihood over training, and the end of it once more."""
  last, title = medians['step'][-1], f'median and quartiles over {medians["runs"]} runs'
  end = _likelihood(medians, 'the last two fifths', 0.6 * last)
  return [_likelihood(medians, title, 0), end]


def _likelihood(medians: Mapping[str, Any], title: str, start: float) -> Figure:
  series = []
  for weight, of in medians['curves'].items():
    rows = zip(medians['step'], of['median'], of['low'], of['high'], strict=True)
    points = tuple(Point(*row) for row in rows if row[0] >= start)
    series.append(Series(NAMES[weight], STYLES[weight], points, band=True))
  x = Axis('adversarial step', start, medians['step'][-1])
  return Figure(title, x, Axis('log likelihood of a draw'), tuple(series))


if __name__ == '__main__':
  command_line(main)
