"""What each metric of a study says, in words for a reader who meets it for the first time.

The page, the tables and whoever writes a study's `metrics` agree by it on titles, directions and
groups.
"""

from typing import Any, NamedTuple

from car_jax.metrics import base, catalogue
from car_jax.metrics.base import ARROWS, BETTER
from car_jax.metrics.texts import ABOUT, GROUPS

__all__ = ['ARROWS', 'BETTER', 'GROUPS', 'KNOWN', 'TERMS', 'Metric', 'described', 'of_score']
SETTING = catalogue.Setting(class_names=('',), one_label=True)


class Metric(NamedTuple):
  """`percent`: values are fractions that are shown times 100."""

  name: str
  title: str
  better: str
  percent: bool
  group: str
  about: str


def _of_about(name: str, about: base.About) -> Metric:
  return Metric(name, about.title, about.better, about.percent, about.group, about.text)


KNOWN = {name: _of_about(name, about) for name, about in ABOUT.items()}


def of_metric(metric: base.Metric) -> Metric:
  return _of_about(metric.name, metric.about)


def of_score(name: str) -> Metric:
  """'auroc' or 'auroc[entropy]', of single pixels."""
  return of_metric(catalogue.metric(name, SETTING))


def described(entry: dict[str, Any]) -> Metric:
  """A study's metric, what it leaves out taken from KNOWN; an unknown one keeps its bare name."""
  name = str(entry['name'])
  base = KNOWN.get(name, Metric(name, name, '', False, GROUPS[1], ''))
  given = {k: v for k, v in entry.items() if k in Metric._fields and v is not None}
  return base._replace(**given)


TERMS = {
  'confidence': 'The probability of the class that the model predicts for a pixel.',
  'calibrated': 'Among pixels predicted at 80 %, 80 % are right. A model can be accurate and '
  'badly calibrated, or the reverse.',
  'recalibration': 'A correction of the confidences that is learnt on a few labelled images after '
  'training: most often the logits are divided by a number, the temperature. Above 1 it makes the '
  'model less sure. One temperature for all classes never changes a prediction.',
  'in-domain and shifted': 'In-domain images look like those of the training. Shifted ones come '
  'from elsewhere or from other weather; the shift runs from 0 (none) to 1 (strongest).',
  '95 % interval': 'What another draw of as many images would give, found by drawing images again '
  'with replacement. It does not cover another training run. There is none where fewer than two '
  'images, or scenes, have the score.',
  'rejection curve': 'Take the least confident pixels away first: the error of those kept should '
  'fall fast.',
}
