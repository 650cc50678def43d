"""Data with known flips: a subject that knows every mode has no error, and the report shows it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.data import opening, pipeline
from car_jax.errors import UserError
from car_jax.evaluate import gallery, harness, plan, report
from car_jax.evaluate.predict import Subject
from car_jax.methods.base import Sampler, Samples
from car_jax.metrics import flips
from tests.report.document import Document

DATA = opening.open_dataset(
  dict(
    name='fake', readers=1, num_classes=3, size=16, class_flips='disc 1:1/4,disc 2:1/2', count=16
  )
)
SPEC = dict(samples=4, metrics=('ged4', 'flip_error', 'flip_error[pixels]', 'miou'))


def all_modes(state, batch, rng, n):
  return Samples(jax.nn.one_hot(batch['labels'], 5), jnp.asarray(batch['label_weight']))


def never_flipped(state, batch, rng, n):
  probs = jax.nn.one_hot(jnp.repeat(batch['labels'][:, :1], n, 1), 5)
  return Samples(probs, jnp.full((len(probs), n), 1 / n), probs[:, 0])


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  subjects = [
    Subject('modes', Sampler(all_modes), None),
    Subject('never', Sampler(never_flipped), None),
  ]
  source, rng = DATA.split('train'), jax.random.key(0)
  batches = lambda: pipeline.eval_batches(source, DATA.info, {'batch': 8})
  evaluator = harness.Evaluator(SPEC, DATA.info, detail=True, readers=True)
  results = evaluator(subjects, batches(), rng=rng)
  choice = gallery.choose(results, 'modes')
  cases = gallery.collect(evaluator, subjects, batches(), results, choice.indices, rng=rng).cases
  about = report.About(title='flips', split='train')
  folder = report.write(tmp_path_factory.mktemp('out') / 'r', results, about, choice, cases).parent
  return results, folder


def test_scores(written):
  results, _ = written
  ged, rates, pixels, _ = results.plan.metrics
  assert ged.pairs.classes == (1, 2, 3, 4)  # the flipping classes and their twins
  assert results.value('modes', rates) == pytest.approx(0, abs=1e-6)
  assert results.value('modes', pixels) == pytest.approx(0, abs=1e-6)
  assert results.value('never', rates) == pytest.approx((1 / 4 + 1 / 2) / 2)
  assert results.value('never', pixels) == pytest.approx((1 / 4 + 1 / 4 + 1 / 2 + 1 / 2) / 4)
  low, high = results.interval('never', rates)[1:3]
  assert low <= results.value('never', rates) <= high


def test_the_report_holds_numbers_and_charts(written):
  _, folder = written
  found = json.loads((folder / 'results.json').read_text())['subjects']
  modes, never = found[0]['flips'], found[1]['flips']
  np.testing.assert_allclose(modes['flip_rates'], [1 / 4, 1 / 2], atol=1e-6)
  np.testing.assert_allclose(modes['mode_masses'], flips.mode_weights(DATA.info.flips), atol=1e-6)
  assert modes['stated'] == {}
  assert never['mode_masses'] == [1, 0, 0, 0]
  assert never['stated']['disc 1'] == 1
  text = (folder / 'report.html').read_text()
  assert 'Class flips' in text
  figures = Document(text).figures
  modes = figures['Does every combination of flips get its mass?']
  right = [float(r['mass']) for r in modes if r['series'] == 'as it should be']
  np.testing.assert_allclose(right, flips.mode_weights(DATA.info.flips), rtol=1e-4)
  assert [r['row'] for r in modes[:4]] == ['none', 'disc 2', 'disc 1', 'disc 1 + disc 2']
  names = figures['How often is each name used?']
  stated = [r for r in names if r['series'] == 'never, as it states itself']
  assert [float(r['share of all pixels of the class']) for r in stated] == [1, 0, 1, 0]
  assert (folder / 'pictures' / 'flips.svg').read_text().count('<svg') == 1
  assert 'flips.svg' in (folder / 'report.md').read_text()


def test_data_without_flips_have_no_flip_error():
  plain = opening.open_dataset(dict(name='fake')).info
  with pytest.raises(UserError, match='fake has no class flips\n.*config.data.class_flips'):
    plan.plan(dict(metrics=('flip_error',)), plain)
