"""What a study is to do: its config checked, and made explicit before anything runs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from car_jax import config as configs
from car_jax.data import labels
from car_jax.errors import UserError, nearest
from car_jax.evaluate import folders
from car_jax.reliability import interpret, measures
from car_jax.reliability.count import How

MODEL_KEYS = ('path', 'step', 'predictor', 'samples', 'chunk', 'about')
SET_KEYS = ('data', 'split', 'labels', 'role', 'condition', 'shift', 'absent', 'about')
ROLES = ('in-domain', 'shifted')
GROUPS = ('models', 'sets', 'pools', 'calibrators', 'calibrate_on')
MOST = dict(calibration_pixels=10**9, sampled=10**9, resamples=10**6, worst=1000, seed=2**63 - 1)
MOST_CLASSES = 254  # 254 and 255 mean something else
MOST_SAMPLES = 100_000
PLAIN = 'none'  # the calibrator that leaves logits as they are
TEXT: tuple[type, str] = (str, 'text')
# key of a model or set -> its type, and how a message names it
EXPECTED: dict[str, tuple[Any, str]] = {
  **dict.fromkeys(('path', 'predictor', 'about', 'split', 'labels', 'role', 'condition'), TEXT),
  'step': ((str, int), "a number, 'best' or 'latest'"),
  **dict.fromkeys(('samples', 'chunk'), (int, f'a whole number from 1 to {MOST_SAMPLES:,}')),
  'data': ((Mapping, ConfigDict), 'dict(name=.., data_dir=..)'),
  'shift': ((int, float), 'a number between 0 (none) and 1 (strongest)'),
  'absent': ((tuple, list), "names of classes, such as ('train',)"),
}


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
  c.kind = ''  # logits or probabilities: what their arrays hold that do not say it
  c.resize = ''  # bilinear: brings their arrays to the size of the labels
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
  try:
    known.update(config)
  except (TypeError, ValueError, AttributeError) as e:  # such as 1e5 for a number of pixels
    raise UserError(f'{path}: {e}') from None
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
  _check_values(c)
  models = {name: _spec(name, m, MODEL_KEYS, 'model', 'path') for name, m in c.models.items()}
  sets = {name: _spec(name, s, SET_KEYS, 'set') for name, s in c.sets.items()}
  for kind, found in (('models', models), ('sets', sets)):
    if not found:
      raise UserError(f'the study has no {kind}\n  set config.{kind}; see configs/reliability.py')
  pools = _pools(c, sets)
  # a config's keys come in alphabetical order
  sets = dict(sorted(sets.items(), key=lambda item: _place(item[1])))
  calibrators = _calibrators(c)
  fitted = [k for k, v in calibrators.items() if not is_file(v)]
  on = _spec('calibrate_on', c.calibrate_on, SET_KEYS, 'set') if c.calibrate_on else {}
  if fitted and not on:
    raise UserError(
      f'calibrator {fitted[0]!r} has no data to be fitted to\n'
      '  set config.calibrate_on, or leave it out'
    )
  _check_kinds([calibrators[k] for k in fitted])
  for what, names in (
    ('models', [*models]),
    ('sets and pools', [*sets, *pools]),
    ('calibrators', [PLAIN, *calibrators]),
  ):
    _check_slugs(what, names)
  chosen = tuple(measures.measure(str(name)) for name in dict.fromkeys(c.measures))
  how = How(c.sampled, c.exact, any('classwise' in m.name for m in chosen), c.seed)
  used = on if fitted else {}
  return Plan(c.title, models, sets, pools, calibrators, used, chosen, how, c)


def _check_values(c: ConfigDict) -> None:
  for key in GROUPS:
    if not isinstance(c[key], (Mapping, ConfigDict)):
      raise UserError(f'config.{key} is {c[key]!r}\n  expected dict(NAME=.., ..)')
  for key, most in MOST.items():
    if type(c[key]) is not int or not 0 <= c[key] <= most:
      shown = f'{c[key]!r:.80}'
      raise UserError(f'config.{key} is {shown}\n  expected a whole number from 0 to {most:,}')
  for key, known in (('kind', ('', *interpret.KNOWN)), ('resize', ('', *interpret.RESIZES))):
    if c[key] not in known:
      raise UserError(f'config.{key} is {c[key]!r}\n{nearest(c[key], filter(None, known))}')
  if type(c.exact) is not bool:
    raise UserError(f'config.exact is {c.exact!r}\n  expected True or False')
  if isinstance(c.measures, str) or not c.measures:
    raise UserError(f"config.measures is {c.measures!r}\n  expected names, such as ('miou', 'ece')")
  _check_classes(c)


def _check_classes(c: ConfigDict) -> None:
  """Names and colours of the classes of predictions made elsewhere."""
  names = c.classes if isinstance(c.classes, (tuple, list)) else ()
  if any(type(n) is not str or not n for n in names) or not 2 <= len(names) <= MOST_CLASSES:
    raise UserError(
      f"config.classes is {c.classes!r:.200}\n  expected 2 to {MOST_CLASSES} names, ('sky', 'sea')"
    )
  if twice := [n for n in names if list(names).count(n) > 1]:
    raise UserError(f'config.classes names {twice[0]!r} twice\n  rename one of them')
  colours = c.palette if isinstance(c.palette, (tuple, list)) else ()
  if len(colours) < len(names):
    raise UserError(
      f'config.palette has {len(colours)} colours for {len(names)} classes\n'
      '  give it a (red, green, blue) for each'
    )
  for row in colours:
    known = isinstance(row, (tuple, list)) and len(row) == 3
    if not known or any(type(v) is not int or not 0 <= v <= 255 for v in row):
      raise UserError(f'config.palette holds {row!r}\n  expected (red, green, blue) from 0 to 255')


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


def _calibrators(c: ConfigDict) -> dict[str, str]:
  """By the order of their kinds, and without the uncalibrated one."""
  for name, kind in c.calibrators.items():
    if not isinstance(kind, str):
      raise UserError(
        f'calibrator {name!r} is {kind!r}\n  expected a kind, such as temperature, or a file'
      )
  known = {kind: i for i, kind in enumerate(('temperature', 'ece_grid', 'per_class', 'clusters'))}
  order = lambda item: (known.get(item[1].rstrip('0123456789:'), len(known)), item[0])
  return dict(sorted(((k, v) for k, v in c.calibrators.items() if k != PLAIN), key=order))


def _check_slugs(what: str, names: list[str]) -> None:
  """Names become names of files, and two must not become one."""
  seen: dict[str, str] = {}
  for name in names:
    if not any(ch.isascii() and ch.isalnum() for ch in name):
      raise UserError(f'{what}: no file can be called {name!r}\n  use letters a-z or digits')
    other = seen.setdefault(folders.slug(name), name)
    if other != name:
      raise UserError(
        f'{what}: files of {other!r} and {name!r} would have one name, {folders.slug(name)!r}\n'
        '  rename one of them'
      )


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
  if isinstance(given, str) and short:
    given = {short: given}
  if not isinstance(given, (Mapping, ConfigDict)):
    raise UserError(f'{what} {name!r} is {given!r}\n  expected dict({keys[0]}=.., ..)')
  spec = {k: v.to_dict() if isinstance(v, ConfigDict) else v for k, v in given.items()}
  if unknown := sorted(set(spec) - set(keys)):
    raise UserError(f'{what} {name!r}: unknown key {unknown[0]!r}\n{nearest(unknown[0], keys)}')
  spec = {k: v for k, v in spec.items() if v is not None}
  for key, value in spec.items():
    kind, told = EXPECTED[key]
    wrong = isinstance(value, bool) or not isinstance(value, kind)
    if wrong or (key in ('samples', 'chunk') and not 1 <= value <= MOST_SAMPLES):
      raise UserError(f'{what} {name!r}: {key} is {value!r}\n  expected {told}')
  if short and not spec.get(short):
    raise UserError(f'{what} {name!r} has no {short}')
  _check_set(spec | {'name': name})
  return spec | {'name': name} | ({'step': str(spec['step'])} if 'step' in spec else {})


def _check_set(spec: Mapping[str, Any]) -> None:
  role = spec.get('role', 'shifted')
  if role not in ROLES:
    raise UserError(f'set {spec["name"]!r}: role {role!r}\n{nearest(role, ROLES)}')
  shift = spec.get('shift')
  if shift is not None and not 0 <= shift <= 1:
    raise UserError(
      f'set {spec["name"]!r}: shift {shift} is not between 0 (none) and 1 (strongest)'
    )
