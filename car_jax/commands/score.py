"""Scores anybody's predictions: car-jax score [NAME=]FOLDER .. --labels FOLDER.

Label maps, logits, probabilities or samples that anybody wrote as files, against any number of
readers, with every score that they have; several folders are compared in one report: report.html,
report.md, results.json, per_image.csv. See docs/predictions.md.
"""

import shlex

from car_jax import config as configs
from car_jax import errors
from car_jax.commands import eval as evaluation
from car_jax.errors import exit_on_user_error


@exit_on_user_error
def main(arguments: list[str]) -> int:
  parser = errors.parser('score', __doc__)
  parser.add_argument('predictions', nargs='+', help='[NAME=]FOLDER of files')
  evaluation.add_labels(parser)
  evaluation.add_explain(parser)
  parser.add_argument(
    '--out', default='', help=f'folder of the report (default: {evaluation.REPORT})'
  )
  args, rest = parser.parse_known_args(arguments)
  from car_jax import ahead  # imports jax

  ahead.use_compilation_cache()
  command = f'car-jax score {shlex.join(arguments)}'
  return evaluation.files(args, configs.split_overrides(rest), command)
