"""The training loop: restore, step, log, evaluate, save. It knows no method and no data set.

Everything a run draws is a function of (seed, step): the data order, the augmentation and the key
that `method.step` gets. So a run that was killed continues as if it had not been.
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import car_jax
from car_jax import (
  ahead,
  batch_size,
  checkpoints,
  memory,
  profiling,
  registry,
  saved_steps,
  sharding,
  writers,
)
from car_jax import config as configs
from car_jax import workdir as workdirs
from car_jax.data import compact, opening, pipeline
from car_jax.data import options as data_options
from car_jax.errors import UserError, nearest, writing
from car_jax.evaluate import preflight
from car_jax.evaluate.validate import Validation
from car_jax.init_from import init_from, untaught
from car_jax.interrupt import Interrupt, Stopped
from car_jax.meter import Meter
from car_jax.methods.train_state import nets, not_finite


def build_method(config: ConfigDict, info: Any, train_examples: int) -> Any:
  """The config's method, told what it must know of the data."""
  context = dict(
    num_classes=info.num_classes,
    ignore_label=info.ignore_label,
    steps_per_epoch=pipeline.steps_per_epoch(train_examples, config.data.batch),
  )
  return registry.method(config.method.to_dict(), **context)


def train(
  config: ConfigDict, workdir: str | Path, *, new: bool = False, dataset: Any = None
) -> Any:
  """Trains to config.steps, continuing what `workdir` holds, and returns the final state.

  dataset: a sources.Dataset in memory, in place of the one that config.data names (data/memory.py).
  Raises UserError for a wrong config or data set, a workdir of another config, an unreadable
  checkpoint, and a loss that is not finite. SystemExit after SIGTERM (0) or Ctrl-C (130), saved.
  """
  workdir = saved_steps.place(workdir)
  mesh = sharding.make_mesh()
  given = configs.check(config)
  workdirs.check_same(given)
  config, changed = batch_size.effective(given, mesh.size, jax.process_count())
  check_outputs(config)
  with configs.setting_up('data'):
    dataset = dataset or opening.open_dataset(config.data)
    source = dataset.split(config.data.train)
  with configs.setting_up('method'):
    method = build_method(config, dataset.info, len(source))
  data = data_options.of(config.data)
  stream = lambda start, data=data: pipeline.train_batches(
    source,
    dataset.info,
    data,
    seed=config.seed,
    start_step=start,
    host=jax.process_index(),
    hosts=jax.process_count(),
  )
  with (
    configs.setting_up('data'),
    contextlib.closing(stream(0, dataclasses.replace(data, workers=0))) as first,
  ):
    example = compact.expanded(next(first))
  with configs.setting_up('evals'):
    run = Run(config, workdir, mesh, dataset, method, np.shape(example.get('image', ()))[1:])
  with configs.setting_up('method'):
    state = method.init(config.seed, example)
  if new or not saved_steps.any_in(workdir / saved_steps.LATEST):
    state = init_from(state, config.init)
    changed = [*changed, *untaught(method, config.init)]
  state = sharding.place_state(state, mesh, config.fsdp)
  for line in (*changed, *preflight.check(config, dataset, source, run, state)):
    run.line(line)
  ratio = batch_size.ratio(given, config)
  with workdirs.claimed(workdir, config, new=new, ratio=ratio), writing(workdir):
    run.line(describe(config, mesh, source, state))
    if config.overview:
      run.line(profiling.overview(state, config.overview, workdir))
    return run.to_the_end(state, stream)


def check_outputs(config: ConfigDict) -> None:
  """Raises UserError for what could not be written: a writer without its package, no trace."""
  writers.check(config.writers)
  if config.profile and not config.profile[0] <= config.profile[1] <= config.steps:
    raise UserError(
      f'config.profile is {tuple(config.profile)}\n'
      f'  the first and the last of the steps 1 to {config.steps:,}, such as '
      f'({min(10, config.steps)}, {min(12, config.steps)})'
    )


class NoBatch(UserError):
  """The data cannot be read on."""


@dataclasses.dataclass
class Run:
  """A workdir being trained in: what `to_the_end` needs from step to step."""

  config: ConfigDict
  workdir: Path
  mesh: Any
  dataset: Any
  method: Any
  image: Sequence[int] = ()  # shape of the training images, kept with the checkpoints

  def __post_init__(self):
    rep, split = sharding.replicated(self.mesh), sharding.split(self.mesh)
    key = jax.random.key(self.config.seed)
    self.phase = self.method.phase

    def step(phase, state, batch):
      kw = {} if phase is None else {'phase': phase}
      state, logs = self.method.step(state, batch, jax.random.fold_in(key, state.step), **kw)
      kept = sharding.of_state(state, self.mesh, self.config.fsdp)
      return jax.lax.with_sharding_constraint(state, kept), logs

    self.jitted = jax.jit(
      step,
      static_argnums=0,
      in_shardings=(None, split),  # the state's own, which it keeps
      out_shardings=(None, rep),
      donate_argnums=1,
    )
    self.programs: dict[Any, Any] = {}  # phase -> the step of this phase, compiled
    self.scores: dict[str, float] = {}
    self.validations = {
      name: Validation(self.method, self.dataset, self.config, spec, self.mesh)
      for name, spec in self.config.evals.items()
    }
    self.known = [f'{name}/{k}' for name, v in self.validations.items() for k in v.names]
    wanted, _ = best_rule(self.config.best)
    if wanted and wanted not in (known := self.known):
      raise UserError(f'config.best: no evaluation gives {wanted!r}\n{nearest(wanted, known)}')

  def program(self, done: int, state: Any, batch: Any, stop: Interrupt | None = None) -> Any:
    """program(state, batch) -> (state, logs), for the step after `done`; compiled where it is new.

    The host counts the steps, the device need not be asked. Raises Stopped.
    """
    phase = self.phase(done, state)
    if phase not in self.programs:
      say = lambda text: self.line(text if phase is None else f'{text}, phase {phase!r}')
      arguments = (self.jitted, phase, state, batch)
      compiled = ahead.compiled(*arguments, stop=stop or Interrupt(), say=say)

      def program(state, batch):
        try:
          return compiled(state, batch)
        except TypeError:  # the state has other types after a step than before
          return self.jitted(phase, state, batch)

      self.programs[phase] = program
    return self.programs[phase]

  def line(self, text: str) -> None:
    sharding.say(text)

  def to_the_end(self, state: Any, stream: Any) -> Any:
    """Trains on from the newest checkpoint, or from `state`; stream(step) gives batches."""
    c = self.config
    latest = checkpoints.Checkpoints(self.workdir / saved_steps.LATEST, c.keep)
    best = checkpoints.Checkpoints(self.workdir / saved_steps.BEST, 1)
    with latest, best, memory.kept(), Interrupt() as stop:
      if newest := checkpoints.newest_sound(latest, state):
        state = newest[0]
        self.line(f'continuing from step {int(state.step):,}')
      done = start = int(state.step)
      self.best_score = best_score(best, c.best, start)
      with (
        writers.Writers(self.workdir, jax.process_index() == 0, start, c.writers) as self.out,
        contextlib.closing(profiling.Trace(c.profile, self.workdir / 'profile')) as trace,
        contextlib.closing(stream(start)) as batches,
      ):
        self.out.config(start, c.to_dict())
        meter = Meter(start, c.steps)
        try:
          if self.lacks_evaluation(start):
            self.evaluate(start, state, meter, best, stop)
          if start >= c.steps:
            self.line(f'step {start:,} of {c.steps:,} is done; a larger --config.steps goes on')
          else:
            batch = self.placed(batches, meter)
          for step in range(start + 1, c.steps + 1):
            with meter.paused():
              program = self.program(step - 1, state, batch, stop)
            with trace.step(step):
              state, logs = program(state, batch)
            trace.done(step, state)
            done, last = step, step == c.steps
            meter.add(step, logs)
            if not last:  # the step still runs
              batch = self.placed(batches, meter)
            stopped = stop.agreed()
            if due(step, c.log_every) or last or stopped:
              self.report(step, meter.flush(step), meter)
            if last:  # saved before anything else can take long or go wrong
              self.save(step, state, meter, latest)
            elif stopped:
              raise Stopped
            if due(step, c.eval_every) or last:
              self.evaluate(step, state, meter, best, stop)
            if due(step, c.save_every) and not last:
              self.save(step, state, meter, latest)
        except (Stopped, NoBatch) as why:
          self.leave(why, done, state, meter, latest, stop)
    return state

  def placed(self, batches: Iterator[Any], meter: Meter) -> dict[str, jax.Array]:
    """The next batch, on its way to the devices."""
    with meter.waiting():
      try:
        batch = next(batches)
      except UserError as e:
        raise NoBatch(str(e)) from e
      return sharding.place_batch(batch, self.mesh)

  def leave(
    self, why: Exception, done: int, state: Any, meter: Meter, latest: Any, stop: Interrupt
  ) -> None:
    """Ends the process when the last step is saved: with the signal's exit status, or with the
    error of the data, after which other processes wait in the next step and save nothing."""
    if isinstance(why, NoBatch) and jax.process_count() > 1:
      raise why
    if done and done not in latest.steps():
      self.save(done, state, meter, latest)
    latest.wait()
    saved = f'saved step {done:,}' if done else 'stopped before the first step'
    self.line(f'{saved}; the same command continues')
    raise why if isinstance(why, NoBatch) else SystemExit(stop.status)

  def lacks_evaluation(self, start: int) -> bool:
    """Whether the run was stopped between the last step and its evaluation."""
    wanted = due(start, self.config.eval_every) or start == self.config.steps
    lacks = wanted and start > 0 and not self.out.recorded(self.known)
    return not sharding.all_agree(not lacks)  # the first process has the record

  def report(self, step: int, logs: dict[str, float], meter: Meter) -> None:
    self.out.scalars(step, logs | meter.scalars())
    losses = '  '.join(f'{k} {v:.4g}' for k, v in logs.items() if k.startswith('loss/'))
    scores = '  '.join(f'{k} {v:.3f}' for k, v in self.scores.items())
    how = meter.words(step, self.config.data.batch)
    self.line(
      '  '.join(x for x in (f'step {step:,}/{self.config.steps:,}', losses, scores, how) if x)
    )

  def evaluate(self, step: int, state: Any, meter: Meter, best: Any, stop: Interrupt) -> None:
    """Scores every entry of config.evals; keeps the checkpoint that is best by config.best.

    What is in the record is also in the checkpoint. Raises Stopped, with nothing kept.
    """
    jax.block_until_ready(state)  # steps under way count as training time
    with meter.paused():
      scores: dict[str, float] = {}
      for name, validation in self.validations.items():
        values = ahead.awaited(functools.partial(validation, state), stop=stop)
        scores |= {f'{name}/{k}': v for k, v in values.items()}
      if not scores:
        return
      name, better = best_rule(self.config.best)
      self.scores = {name: scores[name]} if name else dict(list(scores.items())[:1])
      self.line(f'evaluated at {step:,}: ' + '  '.join(f'{k} {v:.4f}' for k, v in scores.items()))
      if name and better(scores[name], self.best_score):
        self.best_score = scores[name]
        self.save(step, state, meter, best, scores=scores)
        best.wait()
      self.out.scalars(step, scores)
      if self.config.images and self.config.writers:
        for name, validation in self.validations.items():
          drawn = functools.partial(validation.pictures, state, self.config.images)
          shown = ahead.awaited(drawn, stop=stop)
          self.out.pictures(step, {f'{name}/{k}': picture for k, picture in shown.items()})

  def save(self, step: int, state: Any, meter: Meter, into: Any, **more: Any) -> None:
    """A checkpoint with what car-jax eval must know; none where losses or nets are not finite."""
    meter.check(step)
    if bad := not_finite(state):
      raise UserError(
        f'{bad[0]} is not finite after step {step:,}; stopped, the last checkpoint is kept\n'
        '  try a lower learning rate, or method.optim.clip'
      )
    self.out.flush()  # a checkpoint's numbers are on record
    meta = dict(config=self.config.to_dict(), data=dataclasses.asdict(self.dataset.info))
    into.save(step, state, meta | dict(image=self.image) | more)


def due(step: int, every: int) -> bool:
  return every > 0 and step % every == 0


def best_rule(rule: str) -> tuple[str, Any]:
  """'val/ged16:min' -> ('val/ged16', better(new, old)).

  Of equal scores the later one is better: a score that is still at its end, such as an IoU of 0,
  must not keep the first evaluation while the loss falls. A nan is never better.
  """
  name, _, direction = rule.rpartition(':')
  if rule and (not name or direction not in ('min', 'max')):
    raise UserError(
      f'config.best is {rule!r}; expected NAME:min or NAME:max, such as val/ged16:min'
    )
  sign = -1 if direction == 'min' else 1
  return name, lambda new, old: np.isfinite(new) and (old is None or sign * new >= sign * old)


def best_score(best: checkpoints.Checkpoints, rule: str, start: int) -> float | None:
  """The score of the best checkpoint so far, unless it lies ahead of where the run continues."""
  name, _ = best_rule(rule)
  for step in best.steps() if name else ():
    try:
      return best.meta(step)['scores'].get(name) if step <= start else None
    except checkpoints.Damaged as e:
      print(f'warning: damaged checkpoint {e}; its score is forgotten', file=sys.stderr)
  return None


def describe(config: ConfigDict, mesh: Any, source: Any, state: Any) -> str:
  """The first line of a run: devices, effective batch, versions, data, size."""
  device = jax.devices()[0]
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  parts = [f'{name} {count(net.params) / 1e6:.2f} M' for name, net in nets(state).items()]
  arrays = jax.tree.leaves(state)
  split = sum(not a.sharding.is_fully_replicated for a in arrays)
  shared = f', fsdp splits {split} of {len(arrays)} arrays' if config.fsdp else ''
  batch = config.data.batch
  products = config.method.get('precision') or jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
  return (
    f'car_jax {car_jax.__version__}, jax {jax.__version__}: {mesh.size} x {device.device_kind} '
    f'({device.platform}), {jax.process_count()} process(es), batch {batch} '
    f'({batch // mesh.size} per device), products of float32: {products or "default"}\n'
    f'{config.method.name} on {config.data.name}: {len(source):,} training images; '
    f'parameters: {", ".join(parts)}; '
    f'state {sharding.bytes_per_device(state) / 1e6:,.1f} MB on each device{shared}'
  )
