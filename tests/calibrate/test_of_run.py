"""Calibrators of runs by their own data: every reader counts alike, samples by their mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

import car_jax
from car_jax.calibrate import __main__ as command
from car_jax.calibrate import drawn, files
from car_jax.data import compact, opening, pipeline
from car_jax.evaluate.engine import Predicted, Row
from car_jax.evaluate.predict import Prediction
from car_jax.methods.supervised import Supervised
from car_jax.metrics.base import Traits
from tests.predict.models import saved


def pixels_of(run, split):
  """Log probabilities [P, 2] that the run predicts and each reader's label [P], one by one."""
  model = car_jax.load(run)
  data = opening.open_dataset(model.config.data)
  logs, labels = [], []
  batches = pipeline.eval_batches(data.split(split), data.info, model.config.data)
  for batch in map(compact.expanded, batches):
    made = model.predict(np.asarray(batch['image']), 16, names=[*batch['id']])
    for i in np.flatnonzero(batch['valid']):
      for label, weight in zip(batch['labels'][i], batch['label_weight'][i], strict=True):
        if weight > 0:
          logs.append(np.log(np.maximum(made.probabilities[i], 1e-30)).reshape(-1, 2))
          labels.append(label.reshape(-1))
  return np.concatenate(logs), np.concatenate(labels)


def nll(logs, labels, temperature=1.0):
  return -np.mean(log_softmax(logs / temperature, -1)[np.arange(len(labels)), labels])


def test_the_temperature_has_the_least_nll_of_all_readers(tmp_path, capsys, monkeypatch):
  bright = lambda self, state, batch: jnp.stack([z := -20 * batch['image'].mean(-1), -z], -1)
  monkeypatch.setattr(Supervised, 'logits', bright)
  run, out = saved(tmp_path / 'run', 'supervised'), tmp_path / 't.npz'
  assert command.main([str(run), '--out', str(out), '--split', 'test']) == 0
  fit = files.load(out)
  pixels = pixels_of(run, 'test')
  best = minimize_scalar(lambda t: nll(*pixels, t), bounds=(0.05, 20), method='bounded')
  assert 0.1 < best.x < 19
  assert float(np.ravel(fit.calibrator.temperatures)[0]) == pytest.approx(best.x, rel=1e-3)
  assert fit.about['nll_before'] == pytest.approx(nll(*pixels), rel=1e-4)
  assert fit.about['nll_after'] == pytest.approx(best.fun, rel=1e-4)
  assert (fit.about['split'], fit.about['readers']) == ('test', 4)
  assert '4 readers: NLL' in capsys.readouterr().out
  assert 'calibrated' in repr(car_jax.load(run, calibrator=str(out)))


def test_samples_are_calibrated_by_their_mean(tmp_path):
  run, out = saved(tmp_path / 'run', 'mose'), tmp_path / 't.npz'
  assert command.main([str(run), '--out', str(out)]) == 0
  fit = files.load(out)
  # other draws of the same method
  assert fit.about['nll_before'] == pytest.approx(nll(*pixels_of(run, 'validation')), rel=0.02)
  assert (fit.about['samples'], fit.about['readers']) == (16, 4)


def test_batches_are_filled_up_for_all_devices(tmp_path, monkeypatch):
  keywords = {}
  batches = pipeline.eval_batches
  monkeypatch.setattr(
    pipeline, 'eval_batches', lambda *a, **kw: keywords.update(kw) or batches(*a, **kw)
  )
  run = saved(tmp_path / 'run', 'supervised')
  assert command.main([str(run), '--out', str(tmp_path / 't.npz')]) == 0
  assert keywords == {'devices': jax.device_count()}


def test_what_does_not_count_is_not_fitted():
  """The ignored label where it is one of the classes, no class, a reader who is not there."""
  labels = np.array([[[[0, 1], [2, 9]], [[1, 1], [1, 1]]]])
  batch = dict(labels=labels, label_weight=np.array([[1.0, 0.0]]))
  row = Row(Prediction(logits=jnp.zeros((1, 2, 2, 3))), Traits(logits=True))
  predicted = Predicted(batch, {'m': row}, ['a'], ['a'], np.array([True]))
  for ignore, kept in ((2, [0, 1]), (None, [0, 1, 2]), (255, [0, 1, 2])):
    labels = drawn.of_batch(predicted, 0, 0, ignore).labels
    assert sorted(labels[labels >= 0]) == kept


def test_modes_of_class_flips_are_no_readers(tmp_path, capsys):
  flips = dict(readers=1, black_box=True, class_flips='background:4/17,disc 1:8/17')
  run = saved(tmp_path / 'run', 'supervised', **flips)
  assert command.main([str(run), '--out', str(tmp_path / 'x.npz')]) == 2
  assert 'every mode of its class flips as a reader' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('more', 'text'),
  [
    (('--kind', 'temprature'), 'did you mean: temperature'),
    (('--split', 'vali'), "no split 'vali'"),
    (('--config.data.sze=3',), 'did you mean: data.size'),
  ],
)
def test_mistakes_are_one_message(more, text, tmp_path, capsys):
  run = saved(tmp_path / 'run', 'supervised')
  assert command.main([str(run), '--out', str(tmp_path / 'x.npz'), *more]) == 2
  assert text in capsys.readouterr().err
