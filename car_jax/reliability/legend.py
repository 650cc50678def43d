"""What each metric of a study says: its `metrics`, from which its page and tables take words."""

from car_jax.metrics import base, catalogue
from car_jax.metrics.texts import ABOUT
from car_jax.reliability.view import Metric

SETTING = catalogue.Setting(class_names=('',), one_label=True)


def _of_about(name: str, about: base.About) -> Metric:
  return Metric(name, about.title, about.better, about.percent, about.group, about.explanation)


KNOWN = {name: _of_about(name, about) for name, about in ABOUT.items()}


def of_metric(metric: base.Metric) -> Metric:
  return _of_about(metric.name, metric.about)


def of_score(name: str) -> Metric:
  """'auroc' or 'auroc[entropy]', of single pixels."""
  return of_metric(catalogue.metric(name, SETTING))
