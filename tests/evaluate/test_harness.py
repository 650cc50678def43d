"""The harness against plain loops, and that nothing but the examples decides a value."""

import functools
import itertools

import jax
import numpy as np
import pytest
from scipy import stats

from car_jax.data import fake, pipeline
from car_jax.data.sources import Listed
from car_jax.errors import UserError
from car_jax.evaluate import harness, plan, predict
from car_jax.methods import baselines
from car_jax.methods.base import Sampler
from car_jax.metrics import flips, selective
from car_jax.metrics.base import Traits
from tests.evaluate import scene
from tests.whole import whole

METRICS = ('ged6', 'ged6[u]', 'ged3', 'hm_iou6', 'dice_max6', 'diversity6', 'ece', 'ece[own]')
METRICS += ('nll', 'brier[own]', 'miou', 'kl[own]', 'ece[listed,bins=10]')
SPEC = dict(samples=6, metrics=METRICS)
RNG = jax.random.key(3)


def run(batch=4, images=6, spec=SPEC, num_classes=2, first=3, **options):
  """The first so many of the predictors, and the readers."""
  subjects = predict.subjects(scene.Fake(num_classes), scene.STATE)[:first]
  options = dict(readers=True, detail=True) | options
  data = scene.batches(images, batch, num_classes=num_classes)
  return scene.evaluate(subjects, data, spec, scene.info(num_classes), rng=RNG, **options)


@pytest.fixture(scope='module')
def results():
  return run()


def numbers(batch):
  return {k: v for k, v in batch.items() if v.dtype.kind != 'U'}


def drawn(name, images=6, n=6):
  """All predictions of one predictor, without the harness and its batches."""
  (batch,) = scene.batches(images, images)
  return batch, jax.device_get(whole(scene.predictors()[name])(scene.STATE, numbers(batch), RNG, n))


def by_name(results, subject):
  """Values of each image, by the score's name."""
  each = {m.name: results.values(subject, m) for m in results.plan.metrics}
  return {k: v for k, v in each.items() if v is not None}


def plain_iou(a, b):
  union = (a | b).sum()
  return (a & b).sum() / union if union else 1.0


def plain_ged(samples, readers, estimator):
  mean = lambda a, b: np.mean([[1 - plain_iou(x, y) for y in b] for x in a])
  fix = lambda a: len(a) / (len(a) - 1) if estimator == 'u' else 1
  ss, yy = (mean(x, x) * fix(x) for x in (samples, readers))
  return 2 * mean(samples, readers) - ss - yy


def test_the_listed_ece_divides_by_all_pixels(results):
  batch, samples = drawn('samples')
  conf = np.einsum('bnhwc,bn->bhwc', samples.probs, samples.weight)[..., 1].ravel()
  share = np.einsum('bmhw,bm->bhw', batch['labels'] == 1, batch['label_weight']).ravel()
  gap = 0.0
  for low in np.arange(10) / 10:
    here = (conf > low) & (conf <= low + 0.1)
    gap += abs(conf[here].sum() - share[here].sum())
  found = results.scalars()['ece[listed,bins=10]']
  assert found == pytest.approx(gap / len(conf), abs=1e-5)


@pytest.mark.parametrize('name', ['samples', 'independent pixels'])
def test_scores_are_those_of_a_plain_loop_over_images(results, name):
  batch, samples = drawn(name)
  maps = samples.probs.argmax(-1) == 1
  found = by_name(results, name)
  for i, ident in enumerate(batch['id']):
    assert results.ids[i] == ident
    readers = batch['labels'][i][batch['label_weight'][i] > 0] == 1
    for metric, n, estimator in (('ged6', 6, 'v'), ('ged6[u]', 6, 'u'), ('ged3', 3, 'v')):
      want = plain_ged(maps[i][:n], readers, estimator)
      assert found[metric][i] == pytest.approx(want, abs=1e-5), (metric, i)
    share = readers.mean(0)
    p = samples.probs[i].mean(0)[..., 1]
    logs = share * np.log(np.maximum(p, 1e-7)) + (1 - share) * np.log(np.maximum(1 - p, 1e-7))
    assert found['nll'][i] == pytest.approx(-logs.mean(), rel=1e-4)


def test_images_that_fail_are_judged_by_all_readers_and_samples():
  """Two of the report's scores asked for by name: their values, and no value of single images."""
  names = ('image_aurc[pairwise_dice]', 'image_spearman', 'image_augrc[patch10]')
  results = run(spec=dict(samples=6, metrics=names), first=1)
  batch, samples = drawn('samples')
  mean, maps = np.einsum('bnhwc,bn->bhwc', samples.probs, samples.weight), samples.probs.argmax(-1)
  dice = lambda a, b: 2 * (a & b).sum() / (a.sum() + b.sum()) if (a | b).any() else 1.0
  risk, agreed = [], []
  for i, said in enumerate(mean.argmax(-1) == 1):
    readers, drawn_maps = batch['labels'][i][batch['label_weight'][i] > 0] == 1, maps[i] == 1
    risk.append(1 - np.mean([dice(said, r) for r in readers]))
    agreed.append(np.mean([dice(a, b) for a, b in itertools.combinations(drawn_maps, 2)]))
  sure = -np.mean(-np.sum(mean * np.log(np.maximum(mean, 1e-30)), -1), (1, 2))
  values = results.scalars()
  assert values[names[0]] == pytest.approx(selective.areas(agreed, risk).aurc, abs=1e-5)
  assert values[names[1]] == pytest.approx(stats.spearmanr(sure, -np.array(risk)).statistic)
  assert 0 < values[names[2]] < np.mean(risk)
  assert by_name(results, results.subjects[0]) == {}


def test_calibration_error_is_pooled_over_all_pixels(results):
  batch, samples = drawn('samples')
  p = samples.marginal[..., 1].reshape(-1)
  share = np.einsum('bmhw,bm->bhw', batch['labels'] == 1, batch['label_weight']).reshape(-1)
  k = np.clip(np.ceil(p * 15).astype(int) - 1, 0, 14)
  gaps = [abs((p - share)[k == j].sum()) for j in range(15)]
  assert results.scalars()['ece[own]'] == pytest.approx(sum(gaps) / len(p), abs=1e-6)


def test_mean_iou_is_pooled_over_images_and_weighs_readers(results):
  batch, samples = drawn('samples')
  said = samples.probs.mean(1).argmax(-1)[:, None] == 1
  truth, weight = batch['labels'] == 1, batch['label_weight'][..., None, None]
  both, union = ((x * weight).sum() for x in (said & truth, said | truth))
  assert results.scalars()['miou'] == pytest.approx(both / union, rel=1e-5)


@pytest.mark.parametrize('batch', [pytest.param(1, marks=pytest.mark.slow), 6])
def test_batch_size_and_padding_change_nothing(results, batch):
  spec = dict(samples=6, metrics=('ged6', 'hm_iou6', 'ece', 'nll', 'brier[own]', 'miou'))
  other = run(batch=batch, first=1, spec=spec, detail=False)
  assert list(other.ids) == list(results.ids)
  assert [*other.subjects] == ['samples', 'readers']
  for name in other.subjects:
    rows = other.cells[name].rows
    assert len(rows) >= 4
    for key, value in rows.items():
      near = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)
      jax.tree.map(near, results.cells[name].rows[key], value)


def test_images_of_several_sizes_keep_their_order_and_their_scores():
  made = {size: fake.open_dataset(size=size, count=16) for size in (16, 24)}
  records = [made[size].split('test')[k] for k, size in enumerate((16, 16, 16, 24))]
  names = [f'{k}' for k in range(4)]
  records = [r | {'id': n, 'group': n} for r, n in zip(records, names, strict=True)]
  info, subjects = made[16].info, predict.subjects(scene.Fake(), scene.STATE)[:1]
  evaluator = harness.Evaluator(dict(samples=3, metrics=('ged3', 'miou')), info)
  batches = lambda records, size: pipeline.eval_batches(Listed(records), info, dict(batch=size))
  score = lambda *a: evaluator(subjects, batches(*a), rng=RNG)
  alone = [score(part, 1).cells['samples'].rows for part in (records[:3], records[3:])]
  want = jax.tree.map(lambda *x: np.concatenate(x), *alone)
  for size in (1, 4):
    found = score(records, size)
    assert list(found.ids) == names
    near = functools.partial(np.testing.assert_allclose, atol=1e-6)
    jax.tree.map(near, found.cells['samples'].rows, want)


def test_chunks_draw_the_asked_number_of_samples():
  chunked = run(
    spec=dict(samples=6, metrics=('ged6', 'diversity6'), chunk=4),
    first=2,
    readers=False,
    detail=False,
  )
  assert by_name(chunked, 'samples')['ged6'].shape == (6,)
  assert chunked.scalars()['diversity6'] > 0
  at_once = run(
    spec=dict(samples=6, metrics=('ged6', 'diversity6')), first=2, readers=False, detail=False
  )
  flat = (by_name(r, 'argmax')['ged6'] for r in (chunked, at_once))
  np.testing.assert_allclose(*flat)
  assert chunked.scalars()['ged6'] != at_once.scalars()['ged6']  # other draws, as documented


def test_readers_row_draws_only_masks_of_real_readers_in_their_shares():
  (batch,) = scene.batches(6, 6)
  found = whole(predict.draw_readers(2))(None, numbers(batch), RNG, 64)
  for i in range(6):
    readers = batch['labels'][i][batch['label_weight'][i] > 0]
    hits = np.array([[np.array_equal(s, r) for r in readers] for s in np.asarray(found.labels[i])])
    assert hits.any(1).all()
  np.testing.assert_allclose(np.sum(found.mean, -1), 1, atol=1e-5)
  np.testing.assert_allclose(
    np.asarray(found.mean)[..., 1], np.mean(np.asarray(found.labels) == 1, 1), atol=1e-5
  )


def test_readers_row_is_the_best_and_identical_maps_have_no_diversity(results):
  scores = {name: results.scalars(name) for name in results.subjects}
  assert scores['readers']['ged6'] == min(s['ged6'] for s in scores.values())
  assert scores['argmax']['diversity6'] == 0
  assert np.isnan(scores['readers']['ece[own]'])  # readers state no probabilities


def test_intervals_contain_the_mean_and_keep_patients_together(results):
  assert results.units == (3, 'groups')
  for metric in results.plan.metrics:
    found = results.interval('samples', metric)
    assert found.low <= found.mean <= found.high, metric.name
    assert found.mean == pytest.approx(results.value('samples', metric))
    assert (found.images, found.skipped) == (6, 0)


def test_several_classes():
  spec = dict(samples=3, metrics=('ged3', 'ged3[classes=rim+vessel]', 'ece', 'miou'))
  results = run(num_classes=4, spec=spec, first=1, detail=False)
  conventions = [m.convention for m in results.plan.metrics]
  assert conventions[:2] == ['ged3[v,absent=1,all]', 'ged3[v,absent=1,classes=2+3]']
  assert 'top label' in conventions[2]
  for values in map(results.scalars, results.subjects):
    assert np.isfinite([*values.values()]).all()


def test_progress_hears_of_every_image_and_no_image_is_an_error():
  heard = []
  run(
    batch=4,
    spec=dict(samples=2, metrics=('nll',)),
    first=1,
    readers=False,
    detail=False,
    progress=heard.append,
  )
  assert heard == [4, 2]
  with pytest.raises(UserError, match='no image'):
    scene.evaluate([], iter(()), SPEC, scene.info(), rng=RNG)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (dict(metrics=('gde16',)), "unknown metric 'gde16'\n  did you mean: ged16"),
    (dict(metrics=('ece16',)), "unknown metric 'ece16'"),
    (dict(metrics=('ged4[w]',)), "unknown option 'w' in 'ged4"),
    (dict(metrics=('hm_iou4[u]',)), "unknown option 'u'"),
    (dict(metrics=('ged4[classes=nodul]',)), 'did you mean: nodule'),
    (dict(metrics=('ged4[absent=two]',)), "'ged4[absent=two]': absent='two'"),
    (dict(metrics=('ged16x',)), 'did you mean: ged16'),
    (dict(metrics=('ece[bins=x]',)), 'bins is a whole number from 1'),
    (dict(metrics=('ece[classes=1]',)), 'only the listed form has classes'),
    (dict(metric=('ged4',)), "unknown config key 'metric'\n  did you mean: metrics"),
    (dict(samples=0), 'config.samples is 0\n  it is a whole number from 1'),
  ],
)
def test_a_wrong_spec_is_one_clear_message(change, message):
  with pytest.raises(UserError) as e:
    harness.Evaluator(dict(samples=4) | change, scene.info())
  assert message in str(e.value)


def ignoring_batches(num_classes=3):
  """Class 2 is ignored: everyone's left columns, and one reader's upper rows."""
  for batch in scene.batches(4, 4):
    labels = batch['labels'].copy()
    labels[:, :, :, :4] = 2
    labels[:, 0, :4] = 2
    yield batch | {'labels': labels}


def says(value):
  """A predictor that says `value(batch)` everywhere, and never looks at the readers."""

  def predict(state, batch, rng, n):
    return baselines.most_likely(jax.nn.one_hot(value(batch), 3), n)

  return Sampler(predict)


def test_what_is_said_of_ignored_pixels_never_counts():
  info = scene.info(3, ignore_label=2)
  truth = lambda batch: batch['labels'][:, 1]
  errs = lambda batch: jax.numpy.where(truth(batch) == 2, 1, truth(batch))
  subjects = [
    predict.Subject('as readers', says(truth), None),
    predict.Subject('errs there', says(errs), None),
    predict.Subject('shirks', says(lambda b: jax.numpy.full_like(truth(b), 2)), None),
    predict.Subject('background', says(lambda b: 0 * truth(b)), None),
  ]
  spec = dict(samples=2, metrics=('ged2', 'nll', 'brier', 'miou'))
  found = scene.evaluate(subjects, ignoring_batches(), spec, info, rng=RNG)
  score = {name: found.scalars(name) for name in found.subjects}
  assert score['errs there'] == pytest.approx(score['as readers'])
  assert score['as readers']['ged2'] < score['background']['ged2']
  # the ignored class is no way out: what says it has still to say something
  assert score['shirks']['ged2'] >= score['as readers']['ged2']
  assert score['shirks']['miou'] < score['as readers']['miou']


def void_batches(fill=0):
  """255 is ignored: the left half of all readers, everything in image 3; `fill` shifts images."""
  for batch in scene.batches(4, 4):
    labels = batch['labels'].copy()
    labels[:, :, :, : scene.SIZE // 2] = 255
    labels[3] = 255
    image = batch['image'].copy()
    image[:, :, : scene.SIZE // 2] += fill
    image[3] += fill
    yield batch | {'labels': labels, 'image': image}


VOID_SPEC = dict(samples=4, metrics=METRICS[:4] + METRICS[5:])


def voided(batches, draws=True, readers=True):
  made = predict.subjects(scene.Fake(), scene.STATE)[0]
  subject = predict.Subject('samples', made.predict, scene.STATE, traits=Traits(draws=draws))
  kw = dict(rng=RNG, readers=readers, detail=True)
  return scene.evaluate([subject], batches, VOID_SPEC, scene.info(ignore_label=255), **kw)


@pytest.fixture(scope='module')
def shifted():
  """What is void has other predictions; and these count as a whole distribution."""
  return voided(void_batches(fill=0.7), draws=False)


def test_no_score_of_a_report_looks_at_void_pixels_and_void_images_are_skipped(shifted):
  found, other = voided(void_batches(), readers=False), shifted
  for metric in found.plan.metrics:
    interval = found.interval('samples', metric)
    assert (interval.images, interval.skipped) == (3, 1), metric.name
    assert np.isfinite(interval.mean), metric.name
    again = other.interval('samples', metric)
    if metric.left_out(Traits(draws=False)):
      assert np.isnan(again.mean)
    else:
      assert again.mean == pytest.approx(interval.mean, abs=1e-6), metric.name
  table, same = (r.reliability('samples', 'mean') for r in (found, other))
  np.testing.assert_array_equal(table.pixels, same.pixels)
  assert table.pixels.sum() == 3 * scene.SIZE**2 / 2
  text = '\n'.join(found.remarks())
  assert '1 of 4 images have no pixel that counts: skipped.' in text
  assert '62 % of the pixels have the ignored label 255' in text


def test_a_whole_distribution_has_no_unbiased_estimate(shifted):
  """Leaving self pairs out corrects draws; weighted experts, or all modes, are no draws."""
  found = shifted
  assert 'ged6[u]' not in by_name(found, 'samples')
  assert found.rows('samples', 'distances', 'u') is None
  assert 'ged6[u]' in by_name(found, 'readers')
  assert 'samples has no ged6[u]: weights, not draws: see [v].' in found.remarks()
  modes = plan.plan(dict(metrics=('ged4[u]',), classes='all'), flipping()).metrics[0]
  assert 'all modes' in modes.left_out(Traits(draws=True))


def flipping():
  return scene.info(4, flips=(flips.Flip(1, 3, 0.5),))


def test_a_split_without_a_pixel_that_counts_is_an_error():
  void = (b | {'labels': np.full_like(b['labels'], 255)} for b in scene.batches(3, 2))
  with pytest.raises(UserError, match='in all 3 images of the split every pixel has the ignored'):
    scene.evaluate(
      predict.subjects(scene.Fake(), scene.STATE)[:1],
      void,
      dict(samples=2, metrics=('nll',)),
      scene.info(ignore_label=255),
      rng=RNG,
    )


def test_readers_as_samples_say_what_another_reader_knows():
  (batch,) = scene.batches(2, 2)
  labels = batch['labels'].copy()
  labels[:, 0, :3] = 255
  found = whole(predict.draw_readers(2, 255))(None, numbers(batch) | {'labels': labels}, RNG, 32)
  assert set(np.unique(found.labels)) <= {0, 1}
  np.testing.assert_allclose(np.sum(found.mean, -1), 1, atol=1e-5)


def test_a_score_that_no_image_has_is_told():
  found = run(spec=dict(samples=2, metrics=('ged2', 'dice_match2')), first=2)  # four readers
  (line,) = (line for line in found.remarks() if line.startswith('samples has no'))
  assert line.startswith('samples has no dice_match2: no image has one')
