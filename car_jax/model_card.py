"""The model card of a folder for the hub: what a model is, how it was scored, where it ends.

The scores are those of a report of car-jax eval on the same checkpoint, with their conventions.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from car_jax import files
from car_jax.errors import UserError
from car_jax.methods.base import Method
from car_jax.report import evaluation
from car_jax.report.table import number, span

PAPERS = {
  'abn': 'https://arxiv.org/abs/2105.00097',
  'car': 'https://arxiv.org/abs/2006.13144',
  'ccdm': 'https://arxiv.org/abs/2303.08888',
  'flow_matching': 'https://arxiv.org/abs/2210.02747',
  'lts': 'https://arxiv.org/abs/2303.11298',
  'mose': 'https://arxiv.org/abs/2212.07328',
  'phiseg': 'https://arxiv.org/abs/1906.04045',
  'prob_unet': 'https://arxiv.org/abs/1806.05034',
  'sac': 'https://arxiv.org/abs/2105.00097',
  'ssn': 'https://arxiv.org/abs/2006.06015',
}
NETS = ('model', 'calnet', 'generator', 'discriminator', 'segmenter', 'temperature')
KEYS = ('models', 'metrics', 'subjects', 'data', 'units', 'interval', 'samples', 'command')
LIMITS = (
  'It knows images like those that it was trained on, at about their size. On others its masks may '
  'be wrong where its probabilities are high: score it there first. It is made for research, and '
  'decides nothing about patients or traffic.'
)


def read_report(path: pathlib.Path, step: int) -> dict[str, Any]:
  """The content of a report's results.json. Raises UserError, also for one of another step."""
  path = path / 'results.json' if path.is_dir() else path
  again = 'score it: car-jax eval --checkpoint RUN; or name a report: --report FOLDER'
  content = files.read_json(path, keys=KEYS, mend=again)
  if not any(str(line).endswith(f', step {step:,}') for line in content['models']):
    raise UserError(f'{path} is not of step {step:,}, which is exported\n  {again}')
  return content


@dataclasses.dataclass(frozen=True)
class Card:
  """What to say beside config.json. address: where the model will be found, such as zoo:NAME.

  license: of the parameters, as the hub abbreviates it. report: of `read_report`.
  """

  address: str
  license: str
  report: Mapping[str, Any] | None = None

  def text(self, method: Method, meta: Mapping[str, Any], parameters: int) -> str:
    """Markdown with the front matter that the hub reads; meta: config.json's content."""
    option, data = meta['config']['method'], meta['data']
    used = (option[k] for k in NETS if k in option and k not in meta['left_out'])
    nets = [net['name'] for net in used if isinstance(net, dict)]
    front = dict(
      license=self.license,
      library_name='car_jax',
      pipeline_tag='image-segmentation',
      tags=['jax', 'image-segmentation', 'uncertainty', 'calibration', option['name'], *nets],
    )
    size = f', images of {" x ".join(map(str, meta["image"][:2]))}' if meta['image'] else ''
    cited = (PAPERS.get(option['name']), data['citation'], f'car_jax {meta["versions"]["car_jax"]}')
    drawn = '' if method.has_logits else 'samples of what readers may mark, '
    about = (
      f'A model of the method `{option["name"]}` with {parameters:,} parameters '
      f'({", ".join(nets)}), trained for {meta["step"]:,} steps of '
      f'{meta["config"]["data"]["batch"]} images. Of an image it gives a mask, {drawn}class '
      f'probabilities and their uncertainty, by its predictor `{next(iter(method.predictors()))}`.'
    )
    trained_on = f'{data["name"]}{size}; readers of an image: up to {data["readers"]}. Licence: '
    parts = [
      '\n'.join(['---', *(f'{k}: {json.dumps(v)}' for k, v in front.items()), '---']),
      f'# {self.address.rpartition(":")[2].rpartition("/")[2]}',
      about,
      f'{data["num_classes"]} classes: {", ".join(map(str, data["class_names"]))}.',
      '## Use',
      *self._commands(),
      '## Training data',
      trained_on + f'{data["licence"] or "not stated"}.',
      '## Scores',
      *self._scores(),
      '## Limits',
      LIMITS,
      '## Cite',
      '\n'.join(f'- {line}' for line in cited if line),
    ]
    return '\n\n'.join(parts) + '\n'

  def _commands(self) -> list[str]:
    hub = self.address.startswith('hf:')
    return [
      "With car_jax installed, and its extra `hub` (`pip install 'car-jax[hub]'`):"
      if hub
      else 'With car_jax installed:',
      _block(
        f'car-jax predict {self.address} PICTURES --out predicted',
        f'car-jax eval --checkpoint {self.address}',
        f'car-jax export {self.address} --out exported',
      ),
      _block(f"model = car_jax.load('{self.address}')", language='python'),
    ]

  def _scores(self) -> list[str]:
    """The table, what its scores are exactly, how to repeat it; and what calibration is known."""
    if self.report is None:
      return ['Not measured: car-jax eval scores it.', '## Calibration', 'Not measured.']
    data, names = self.report['data'], {m['name']: m for m in self.report['metrics']}
    first, over = self.report['subjects'][0], self.report['interval']
    images, samples = f'{data["images"]:,} images', self.report['samples']
    drawn = f'{samples} samples each' if samples > 1 else 'one sample each'
    calibration = [
      f'- {name} of {first["name"]}: {_with_interval(first["scores"][name])}'
      for name in names
      if name.startswith(('ece', 'nll', 'brier', 'ace'))
      and first['scores'][name]['mean'] is not None
    ]
    return [
      f'{data["name"]}, {data["split"]}: {images}, {drawn}. Brackets hold the {over}.',
      '\n'.join(evaluation.scores(self.report).markdown()),
      '\n'.join(f'- {name}: `{m["convention"]}`. {m["explanation"]}' for name, m in names.items()),
      '## Calibration',
      '\n'.join(calibration) or 'Not measured.',
      'No calibrator was applied.',
    ]


def _with_interval(entry: Mapping[str, Any]) -> str:
  return f'{number(entry["mean"], 4)} ({span((entry["low"], entry["high"]), 4)})'


def _block(*lines: str, language: str = '') -> str:
  return '\n'.join([f'```{language}', *lines, '```'])
