"""Names of predictors that are made of trained runs, wherever a run is named.

  ensemble:RUN1,RUN2   several trainings (Lakshminarayanan et al., NeurIPS 2017); a folder of
                       trainings seed0, seed1, .. stands for all of them
  dropout:RUN          a net whose dropout goes on in prediction (Gal & Ghahramani, ICML 2016)
  tta:RUN              copies of the image, turned as training turned it, and turned back

The methods are in methods/mixture.py and methods/mc_dropout.py.
"""

import difflib
import re

from car_jax.errors import UserError

KINDS = ('ensemble', 'dropout', 'tta')


def is_named(text: str) -> bool:
  """Whether a text is such a name, no path."""
  return bool(re.match(f'({"|".join(KINDS)}):', text))


def check_kind(text: str) -> None:
  """Raises UserError for a misspelt kind, such as 'ensembel:A,B'."""
  kind, colon, rest = text.partition(':')
  if colon and kind not in KINDS and (near := difflib.get_close_matches(kind, KINDS, n=1)):
    raise UserError(f'{text} begins with no known kind\n  did you mean: {near[0]}:{rest}')


def split(text: str) -> tuple[str, list[str]]:
  """'ensemble:A,B' -> ('ensemble', ['A', 'B']); the others have one run. UserError for none."""
  kind, _, rest = text.partition(':')
  runs = rest.split(',') if kind == 'ensemble' else [rest]
  if not (runs := [run.strip() for run in runs if run.strip()]):
    raise UserError(f'{text} names no run\n  such as {kind}:RUN' + ',RUN' * (kind == 'ensemble'))
  return kind, runs
