"""What a study is to do: its config checked, and made explicit before anything runs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from car_jax import folders, hub, options
from car_jax.calibrate import base
from car_jax.data import corruptions, labels
from car_jax.errors import UserError, naming, nearest
from car_jax.metrics import catalogue
from car_jax.metrics.base import Metric
from car_jax.metrics.catalogue import Setting
from car_jax.reliability import class_names
from car_jax.reliability.count import How
from car_jax.reliability.guarantees import Guarantee, checked
from car_jax.reliability.study_options import Correlation, ImageSet, Model, StudyOptions
from car_jax.report.table import joined

MOST_TITLED = 3  # names in a title
PLAIN = 'none'  # the calibrator that leaves logits as they are


@dataclasses.dataclass(frozen=True)
class Plan:
  title: str
  models: dict[str, Model]
  absent: tuple[str, ...]  # names of models that are left out, since they are not there
  sets: dict[str, ImageSet]
  pools: dict[str, tuple[str, ...]]
  correlations: dict[str, Correlation]  # of sets, no pools
  calibrators: dict[str, str]  # without the uncalibrated one
  calibrate_on: ImageSet | None
  measures: tuple[str, ...]
  how: How
  config: ConfigDict
  guarantees: dict[str, Guarantee]
  seeds: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
  """Model -> its trainings among `models`, where it has several."""

  @property
  def fitted_on(self) -> ImageSet:
    """calibrate_on, where calibrators are fitted or thresholds chosen."""
    assert self.calibrate_on is not None
    return self.calibrate_on

  def metrics(self, classes: Sequence[str], absent: Sequence[str] = ()) -> tuple[Metric, ...]:
    """The scores of the study, those of its correlations among them, of a set with such classes.

    absent: names of classes that its labels do not have.
    """
    named = [*self.measures, *(m for c in self.correlations.values() for m in c.measures)]
    setting = Setting(
      class_names=tuple(classes),
      ignore=labels.IGNORED_TRAIN_ID,
      one_label=True,
      absent_classes=tuple(classes.index(c) for c in absent),
      exact=self.config.exact,
    )
    return catalogue.metrics(named, setting)


def plan(config: ConfigDict, path: str = 'CONFIG') -> Plan:
  """Raises UserError for anything that would stop a study later; `path` is the config's there."""
  c = config
  _check_values(c)
  full = options.completed(StudyOptions, c.to_dict())
  models = {name: _model(name, given) for name, given in full['models'].items()}
  models, absent = _present(models, path) if full['missing'] == 'skip' else (models, ())
  models, seeds = _trainings(models)
  sets = {name: _image_set(name, given) for name, given in full['sets'].items()}
  for kind, named in (('models', models), ('sets', sets)):
    if not named:
      raise UserError(f'the study has no {kind}\n  set config.{kind}; see configs/reliability.py')
  pools = _pools(c, sets)
  correlations = {
    k: _correlation(k, v, sets, pools, c.classes) for k, v in full['correlations'].items()
  }
  # a config's keys come in alphabetical order
  sets = dict(sorted(sets.items(), key=lambda item: _place(item[1])))
  calibrators = _calibrators(c)
  fitted = [k for k, v in calibrators.items() if not is_file(v)]
  on = _calibration_set(full['calibrate_on'], sets) if full['calibrate_on'] else None
  if fitted and not on:
    raise UserError(
      f'calibrator {fitted[0]!r} has no data to be fitted to\n'
      '  set config.calibrate_on, or leave it out'
    )
  promised = checked(full['guarantees'], bool(on))
  for name in fitted:
    base.find(calibrators[name])
  for what, names in (
    ('models', [*models]),
    ('sets and pools', [*sets, *pools]),
    ('calibrators', [PLAIN, *calibrators]),
  ):
    folders.check_slugs(what, names)
  chosen = tuple(dict.fromkeys(map(str, c.measures)))
  _check_measures(chosen, c.classes)
  how = How(c.sampled, c.seed)
  used = on if fitted or promised else None
  title = c.title or _title([*full['models']], [*sets])
  parts = (title, models, absent, sets, pools, correlations, calibrators, used)
  return Plan(*parts, chosen, how, c, promised, seeds)


def _model(name: str, given: Mapping[str, Any]) -> Model:
  """zoo:NAME or hf://OWNER/NAME replaced by its folder. Raises UserError."""
  model = options.instance(Model, given)
  if not model.path:
    raise UserError(f'model {name!r} has no path')
  path = hub.place_of(model.path) if hub.is_named(model.path) else model.path
  return dataclasses.replace(model, name=name, path=path, step=str(model.step))


def _image_set(name: str, given: Mapping[str, Any]) -> ImageSet:
  made = options.instance(ImageSet, given)
  if corruption := dict(given.get('data') or {}).get('corruption'):
    with naming(f'config.sets.{name}'):
      corruptions.parse(corruption)
  return dataclasses.replace(made, name=name, condition=made.condition or name)


def _present(models: dict[str, Model], path: str) -> tuple[dict[str, Model], tuple[str, ...]]:
  """The models whose folders are there, and names of the others. Raises UserError for none."""
  is_there = lambda path: '{' in path or all(p.exists() for p in hub.folders_of(path))
  there = {k: v for k, v in models.items() if is_there(v.path)}
  if models and not there:
    name, model = next(iter(models.items()))
    raise UserError(
      f'none of the {len(models)} models of the study is there; such as {name} in {model.path}\n'
      f'  import published weights: car-jax import registry {path} --weights FOLDER'
    )
  return there, tuple(name for name in models if name not in there)


def _title(models: Sequence[str], sets: Sequence[str]) -> str:
  """'A and B on clear, fog and snow'; of many, how many."""
  many = lambda names, what: f'{len(names)} {what}' if names[MOST_TITLED:] else joined(names)
  return f'{many(models, "models")} on {many(sets, "sets")}'


def _trainings(
  models: dict[str, Model],
) -> tuple[dict[str, Model], dict[str, tuple[str, ...]]]:
  """Models, a folder of runs seed0, seed1, .. replaced by its runs; and model -> their names."""
  each = {name: folders.named_trainings(name, model.path) for name, model in models.items()}
  out = {
    run: dataclasses.replace(models[name], name=run, path=path)
    for name, of in each.items()
    for run, path in of.items()
  }
  return out, {name: tuple(of) for name, of in each.items() if name not in of}


def _check_values(c: ConfigDict) -> None:
  """Of measures, and of names and colours of the classes of predictions made elsewhere."""
  if not c.measures:
    raise UserError("config.measures is empty\n  it is names, such as ('miou', 'ece')")
  class_names.check(c.classes, c.palette)


def _calibration_set(given: Mapping[str, Any], sets: Mapping[str, ImageSet]) -> ImageSet:
  """Of the study's sets the one that it names, or one of its own. Raises UserError."""
  name, own = given['set'], {k: v for k, v in given.items() if k != 'set'}
  if not name:
    return _image_set('calibrate_on', given)
  if name not in sets:
    raise UserError(f'calibrate_on: no set {name!r}\n{nearest(name, sets)}')
  if more := sorted(options.beyond_defaults(ImageSet, own)):
    raise UserError(
      f'calibrate_on is the set {name!r} and has {more[0]} of its own\n  leave one of them out'
    )
  return sets[name]


def _pools(c: ConfigDict, sets: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
  for name, of in c.pools.items():
    if not isinstance(of, (tuple, list)) or not of:
      raise UserError(f'pool {name!r} is {of!r}\n  expected names of sets: {", ".join(sets)}')
    if unknown := [s for s in of if s not in sets]:
      raise UserError(
        f'pool {name!r} holds no such set {unknown[0]!r}\n{nearest(unknown[0], sets)}'
      )
    if name in sets:
      raise UserError(f'{name!r} is the name of a set and of a pool\n  rename one of them')
  return {name: tuple(of) for name, of in c.pools.items()}


def _correlation(
  name: str,
  given: Mapping[str, Any],
  sets: Mapping[str, Any],
  pools: Mapping[str, Any],
  classes: Sequence[str],
) -> Correlation:
  """With pools replaced by their sets. Raises UserError."""
  out: dict[str, tuple[str, ...]] = {}
  for side in ('synthetic', 'real'):
    if not given[side]:
      raise UserError(f'correlation {name!r} has no {side} sets\n  known: {", ".join(sets)}')
    if unknown := [s for s in given[side] if s not in sets and s not in pools]:
      raise UserError(
        f'correlation {name!r}: no set or pool {unknown[0]!r}\n'
        f'{nearest(unknown[0], [*sets, *pools])}'
      )
    out[side] = tuple(dict.fromkeys(s for key in given[side] for s in pools.get(key, (key,))))
  if both := [s for s in out['synthetic'] if s in out['real']]:
    raise UserError(
      f'correlation {name!r}: {both[0]!r} is on both sides\n  every set predicts itself'
    )
  if not given['measures']:
    raise UserError(f"correlation {name!r} has no measures\n  it is names, such as ('miou',)")
  named = tuple(dict.fromkeys(map(str, given['measures'])))
  _check_measures(named, classes)
  return Correlation(**out, measures=named)


def _check_measures(names: Sequence[str], classes: Sequence[str]) -> None:
  """Raises UserError for a name of no score. Classes of runs are not known yet."""
  setting = Setting(class_names=tuple(map(str, classes)), one_label=True)
  catalogue.metrics(names, setting)


def _calibrators(c: ConfigDict) -> dict[str, str]:
  """By the order of their kinds, and without the uncalibrated one."""
  for name, kind in c.calibrators.items():
    if name == PLAIN and kind:
      raise UserError(f'no calibrator is called {PLAIN!r}\n  give that of {kind!r} another name')
    if not isinstance(kind, str):
      raise UserError(
        f'calibrator {name!r} is {kind!r}\n  expected a kind, such as temperature, or a file'
      )
  known = {kind: i for i, kind in enumerate(('temperature', 'ece_grid', 'per_class', 'clusters'))}
  order = lambda item: (known.get(item[1].rstrip('0123456789:'), len(known)), item[0])
  return dict(sorted(((k, v) for k, v in c.calibrators.items() if k != PLAIN), key=order))


def _place(image_set: ImageSet) -> tuple[Any, ...]:
  """In-domain sets first, then by condition and growing shift."""
  shift = -1 if image_set.shift is None else image_set.shift
  return image_set.role != 'in-domain', image_set.condition, shift


def is_file(kind: str) -> bool:
  return kind.endswith('.npz')
