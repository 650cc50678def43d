"""What a study is to do: its config checked, and made explicit before anything runs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from car_jax import config as configs
from car_jax.data import labels
from car_jax.errors import UserError, nearest
from car_jax.reliability import measures
from car_jax.reliability.count import How

MODEL_KEYS = ('path', 'step', 'predictor', 'samples', 'chunk', 'about')
SET_KEYS = ('data', 'split', 'labels', 'role', 'condition', 'shift', 'absent', 'about')
ROLES = ('in-domain', 'shifted')


def defaults() -> ConfigDict:
  """Everything that a study's config may say."""
  c = ConfigDict()
  c.title = 'Reliability under shift'
  c.models = ConfigDict()  # name -> run folder or folder of predictions, or dict(path=.., ..)
  c.sets = ConfigDict()  # name -> dict(data=.., split=.., role=.., condition=.., shift=..)
  c.pools = ConfigDict()  # name -> names of sets whose images are scored together
  c.calibrators = ConfigDict()  # name -> kind, or a file; {model} in it stands for the model
  c.calibrate_on = ConfigDict()  # a set as above, to fit calibrators to
  c.calibration_pixels = 20_000  # of each image, at random
  c.measures = DEFAULT_MEASURES
  c.sampled = 0  # random pixels of each image, 0: all of them
  c.exact = False  # sort all scores instead of binning them
  c.resamples = 200  # of the images, for 95 % intervals
  c.worst = 3  # images shown for each model, of the first set and of the strongest shift
  c.classes = labels.CLASS_NAMES[: labels.SCORED]  # of predictions made elsewhere
  c.palette = labels.PALETTE[: labels.SCORED]
  c.seed = 0
  return c


DEFAULT_MEASURES = (
  *('miou', 'pixel_accuracy', 'ece', 'adaptive_ece', 'ks', 'mce', 'nll', 'brier'),
  *('auroc', 'auroc[entropy]', 'aupr_error', 'fpr95', 'prr', 'aurc', 'auroc[disagreement]'),
  *('unknown_auroc', 'unknown_auroc[entropy]', 'unknown_auroc[max_logit]', 'unknown_auroc[energy]'),
  *('unknown_ap', 'unknown_fpr95'),
)


def load(path: str, pairs: Any = ()) -> ConfigDict:
  """A study's config file with overrides. Raises UserError for unknown keys."""
  config, known = configs.read(path), defaults()
  if unknown := sorted(set(config) - set(known)):
    hint = nearest(unknown[0], known)
    if 'method' in config:
      hint = '  this config trains; a study is such as configs/reliability.py'
    raise UserError(f'{path}: unknown key {unknown[0]!r} of a study\n{hint}')
  known.update(config)
  return configs.override(known, pairs)


@dataclasses.dataclass(frozen=True)
class Plan:
  title: str
  models: dict[str, dict[str, Any]]
  sets: dict[str, dict[str, Any]]
  pools: dict[str, tuple[str, ...]]
  calibrators: dict[str, str]  # without the uncalibrated one
  calibrate_on: dict[str, Any]
  measures: tuple[measures.Measure, ...]
  how: How
  config: ConfigDict


def plan(config: ConfigDict) -> Plan:
  """Raises UserError for anything that would stop a study later."""
  c = config
  models = {name: _spec(name, m, MODEL_KEYS, 'model', 'path') for name, m in c.models.items()}
  sets = {name: _spec(name, s, SET_KEYS, 'set') for name, s in c.sets.items()}
  for kind, found in (('models', models), ('sets', sets)):
    if not found:
      raise UserError(f'the study has no {kind}\n  set config.{kind}; see configs/reliability.py')
  for spec in sets.values():
    _check_set(spec)
  pools = {name: tuple(of) for name, of in c.pools.items()}
  for name, of in pools.items():
    if unknown := [s for s in of if s not in sets]:
      raise UserError(
        f'pool {name!r} holds no such set {unknown[0]!r}\n{nearest(unknown[0], sets)}'
      )
    if name in sets:
      raise UserError(f'{name!r} is the name of a set and of a pool\n  rename one of them')
  # a config's keys come in alphabetical order
  sets = dict(sorted(sets.items(), key=lambda item: _place(item[1])))
  known = {kind: i for i, kind in enumerate(('temperature', 'ece_grid', 'per_class', 'clusters'))}
  order = lambda item: (known.get(item[1].rstrip('0123456789:'), len(known)), item[0])
  calibrators = dict(sorted(((k, v) for k, v in c.calibrators.items() if k != 'none'), key=order))
  fitted = [k for k, v in calibrators.items() if not is_file(v)]
  on = _spec('calibrate_on', c.calibrate_on, SET_KEYS, 'set') if c.calibrate_on else {}
  if fitted and not on:
    raise UserError(
      f'calibrator {fitted[0]!r} has no data to be fitted to\n'
      '  set config.calibrate_on, or leave it out'
    )
  _check_kinds([calibrators[k] for k in fitted])
  chosen = tuple(measures.measure(str(name)) for name in dict.fromkeys(c.measures))
  how = How(c.sampled, c.exact, any('classwise' in m.name for m in chosen), c.seed)
  return Plan(c.title, models, sets, pools, calibrators, on, chosen, how, c)


def _place(spec: Mapping[str, Any]) -> tuple[Any, ...]:
  """In-domain sets first, then by condition and growing shift."""
  condition, shift = spec.get('condition', spec['name']), spec.get('shift')
  return spec.get('role') != 'in-domain', condition, -1 if shift is None else shift


def is_file(kind: str) -> bool:
  return kind.endswith('.npz')


def _check_kinds(kinds: list[str]) -> None:
  from car_jax.calibrate import base

  for kind in kinds:
    base.find(kind)


def _spec(
  name: str, given: Any, keys: tuple[str, ...], what: str, short: str = ''
) -> dict[str, Any]:
  """One model or set as a dict; a plain text is its `short` key."""
  spec = {short: given} if isinstance(given, str) and short else dict(given)
  if unknown := sorted(set(spec) - set(keys)):
    raise UserError(f'{what} {name!r}: unknown key {unknown[0]!r}\n{nearest(unknown[0], keys)}')
  if short and not spec.get(short):
    raise UserError(f'{what} {name!r} has no {short}')
  plain = {k: v.to_dict() if isinstance(v, ConfigDict) else v for k, v in spec.items()}
  return plain | {'name': name}


def _check_set(spec: Mapping[str, Any]) -> None:
  role = spec.get('role', 'shifted')
  if role not in ROLES:
    raise UserError(f'set {spec["name"]!r}: role {role!r}\n{nearest(role, ROLES)}')
  shift = spec.get('shift')
  if shift is not None and not 0 <= shift <= 1:
    raise UserError(
      f'set {spec["name"]!r}: shift {shift} is not between 0 (none) and 1 (strongest)'
    )
