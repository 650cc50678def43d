"""Samples that a numpy script wrote, in every layout, against a plain loop over pixels."""

import itertools
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from scipy.optimize import linear_sum_assignment

from car_jax.errors import UserError
from car_jax.predictions import command
from car_jax.predictions.dataset import Dataset
from tests.docs import pages
from tests.evaluate import scene
from tests.metrics import oracle

VOID = 255


def overlap(a, b, knows, k, dice):
  """IoU or Dice of class k from sets of pixels, nan where neither map has it."""
  pixels = [p for p in np.ndindex(a.shape) if knows[p]]
  one = {p for p in pixels if a[p] == k}
  two = {p for p in pixels if b[p] == k}
  if not one | two:
    return np.nan
  return 2 * len(one & two) / (len(one) + len(two)) if dice else len(one & two) / len(one | two)


def similarity(a, b, knows, classes, skip, dice=False):
  values = np.array([overlap(a, b, knows, k, dice) for k in classes])
  if skip:
    return np.mean(values[~np.isnan(values)]) if (~np.isnan(values)).any() else np.nan
  return np.mean(np.where(np.isnan(values), 1.0, values))


def plain(samples, weight, readers, classes, skip=False):
  """Scores of one image by their definitions; readers may leave pixels VOID."""
  known, any_knows = [r != VOID for r in readers], np.any([r != VOID for r in readers], 0)
  score = lambda a, b, knows, dice=False: similarity(a, b, knows, classes, skip, dice)
  M, N, out = len(readers), len(samples), {}
  for name, dice in (('iou', False), ('dice', True)):
    ys = [[score(r, s, k, dice) for s in samples] for r, k in zip(readers, known, strict=True)]
    yy = [
      [score(readers[i], readers[j], known[i] & known[j], dice) for j in range(M)] for i in range(M)
    ]
    ss = [[score(a, b, any_knows, dice) for b in samples] for a in samples]
    out[name] = [1 - np.array(x) for x in (ys, yy, ss)]
  ys, yy, ss = out['iou']
  apart = lambda far, w: sum(
    w[i] * w[j] * far[i, j] for i, j in itertools.permutations(range(len(w)), 2)
  )
  equal = np.full(M, 1 / M)
  among = lambda w: 1 - np.sum(np.square(w)) if len(w) > 1 else np.nan
  d_ys = np.sum(ys * equal[:, None] * weight)
  copies = np.lcm(M, N)
  pairs = np.repeat(np.repeat(1 - ys, copies // M, 0), copies // N, 1)
  rows, columns = linear_sum_assignment(pairs, maximize=True)
  return {
    'ged[v]': 2 * d_ys - apart(ss, weight) - apart(yy, equal),
    'ged[u]': 2 * d_ys - apart(ss, weight) / among(weight) - apart(yy, equal) / among(equal),
    'hm_iou': np.mean(pairs[rows, columns]),  # of equal weights
    'dice_max': np.mean([max(1 - far) for far in out['dice'][0]]),
    'dice_max_of_samples': np.sum(weight * (1 - out['dice'][0]).max(0)),
    'dice_match': max(
      (np.mean(1 - out['dice'][0][range(M), way]) for way in itertools.permutations(range(N), M)),
      default=np.nan,
    ),
  }


def calibration(probs, readers, bins=15):
  """NLL and Brier score by image, and the ECE of class 1 over all, with pixels one by one."""
  nll, brier, sums = [], [], np.zeros((bins, 3))
  for p, maps in zip(probs, readers, strict=True):
    logs, squares = [], []
    for at in np.ndindex(p.shape[:2]):
      said = [int(r[at]) for r in maps if r[at] != VOID]
      if not said:
        continue
      logs.append(-np.mean([np.log(max(p[at][c], 1e-7)) for c in said]))
      squares.append(np.mean([np.sum((p[at] - np.eye(p.shape[-1])[c]) ** 2) for c in said]))
      k = max(int(np.ceil(np.float32(p[at][1]) * np.float32(bins))) - 1, 0)
      sums[k] += 1, p[at][1], np.mean([c == 1 for c in said])
    nll.append(np.mean(logs))
    brier.append(np.mean(squares))
  return np.mean(nll), np.mean(brier), np.abs(sums[:, 1] - sums[:, 2]).sum() / sums[:, 0].sum()


def numbers(out):
  """Subject -> score -> mean, of a written report, which must hold no nan in words."""
  content = json.loads((out / 'results.json').read_text())
  return {
    s['name']: {k: v['mean'] for k, v in s['scores'].items()} for s in content['subjects']
  }, content


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """What the script of the page writes, and the report of the page's command."""
  folder = tmp_path_factory.mktemp('page')
  pages.play(pages.ROOT / 'docs/predictions.md', folder)
  return folder


def test_three_layouts_of_a_numpy_script_are_a_plain_loop_over_pixels(written):
  means, content = numbers(written / 'report')
  images = [np.load(written / 'arrays' / f'{k}.npz')['samples'] for k in 'abc']
  readers = [np.load(written / 'labels' / f'{k}.npz')['readers'] for k in 'abc']
  weight = np.full(5, 1 / 5)
  for skip, absent in ((False, 'absent=1'), (True, 'absent=skip')):
    each = [plain(s, weight, r, (1,), skip) for s, r in zip(images, readers, strict=True)]
    want = {k: np.mean([one[k] for one in each]) for k in each[0]}
    for name in ('arrays', 'files', 'pages'):
      got = means[name]
      assert got[f'ged[v,{absent}]'] == pytest.approx(want['ged[v]'], abs=1e-5)
      assert got[f'ged[u,{absent}]'] == pytest.approx(want['ged[u]'], abs=1e-5)
      assert got[f'hm_iou[{absent}]'] == pytest.approx(want['hm_iou'], abs=1e-5)
      assert got[f'dice_max[{absent}]'] == pytest.approx(want['dice_max'], abs=1e-5)
      of_samples = got[f'dice_max[best=readers,{absent}]']
      assert of_samples == pytest.approx(want['dice_max_of_samples'], abs=1e-5)
      assert got[f'dice_match[{absent}]'] == pytest.approx(want['dice_match'], abs=1e-5)
  areas, soft = {'v': [], 'u': []}, []
  for s, r in zip(images, readers, strict=True):
    for e, values in areas.items():
      values.append(oracle.area_crps(s, r, (1,), e))
    probs = np.stack([1 - s.mean(0), s.mean(0)], -1)
    soft.append(oracle.soft_dice(probs, r, (1,), (0.1, 0.3, 0.5, 0.7, 0.9)))
  for name in ('arrays', 'files', 'pages'):
    for e, values in areas.items():
      assert means[name][f'crps_area[{e}]'] == pytest.approx(np.mean(values), abs=1e-4)
    assert means[name]['dice_soft[absent=1]'] == pytest.approx(np.mean(soft), abs=1e-6)
  probs = [np.stack([1 - s.mean(0), s.mean(0)], -1) for s in images]
  nll, brier, ece = calibration(probs, readers)
  for name in ('arrays', 'files', 'pages'):
    got = [means[name][k] for k in ('nll', 'brier', 'ece')]
    np.testing.assert_allclose(got, [nll, brier, ece], rtol=1e-4, atol=1e-6)
  assert means['arrays'] == means['files'] == means['pages']
  assert content['subjects'][0]['scores']['ged[u,absent=1]']['convention'] == 'ged5[u,absent=1,fg]'


CLASSES = 3


def drawn(seed, size=(9, 7)):
  """Images of two sizes with other numbers of readers and samples, void pixels, weights."""
  rng = np.random.default_rng(seed)
  readers, samples = 2 + seed % 3, 1 + seed
  shape = size if seed % 2 else (6, 8)
  labels = rng.integers(0, CLASSES, (readers, *shape)).astype(np.uint8)
  labels[0, 0], labels[:, 1, 1] = VOID, VOID
  labels[labels == 2] = 0 if seed == 1 else 2  # a class that an image lacks
  probs = rng.dirichlet(np.ones(CLASSES), (samples, *shape)).astype(np.float32)
  return labels, probs, rng.uniform(0.5, 1, samples)


SEEDS = (0, 1, 2, 3)


@pytest.fixture(scope='module')
def uneven(tmp_path_factory):
  """The images of `drawn` written as probabilities, classes first, as logits, and as files each;
  with readers in a folder each, or beside each other."""
  root = tmp_path_factory.mktemp('uneven')
  for seed in SEEDS:
    labels, probs, weight = drawn(seed)
    for part in ('last', 'first', 'maps', f'folders/i{seed}', f'own/i{seed}', 'beside'):
      (root / part).mkdir(parents=True, exist_ok=True)
    np.savez(root / f'last/i{seed}.npz', probabilities=probs, weights=weight)
    first = np.moveaxis(np.log(probs) + 3, -1, 1)
    np.savez(root / f'first/i{seed}.npz', logits=first, weights=weight)
    maps = dict(samples=probs.argmax(-1), probabilities=probs)
    np.savez(root / f'maps/i{seed}.npz', **maps, weights=10 * weight)
    for k, sample in enumerate(probs):
      np.save(root / f'folders/i{seed}/s{k + 4}.npy', sample)
    for k, reader in enumerate(labels):
      Image.fromarray(reader).save(root / f'own/i{seed}/{k + 1}.png')
      Image.fromarray(reader).save(root / f'beside/i{seed}_reader{2 * k}.png')
  return root


SPEC = ('ged[v,all]', 'ged[v,classes=1+2,absent=skip]', 'ged[u,all]', 'dice_max[all]', 'nll', 'ece')
SPEC += ('brier', 'miou', 'hm_iou[all]', 'dice_match[all]', 'crps_area[all]', 'dice_soft[all]')
SPEC += ('dice_max[best=readers,all,absent=zero]', 'ci[self,fg]')


def scored(given, labels, out, **options):
  changes = [('report.metrics', repr(options.pop('metrics', SPEC)))]
  return command.evaluate([*map(str, given)], str(labels), out, changes=changes, **options)[0]


def test_probabilities_logits_and_weights_of_uneven_images(uneven, tmp_path):
  names = ('last', 'first', 'maps')
  results = scored([uneven / n for n in names], uneven / 'own', tmp_path / 'out')
  assert list(results.ids) == [f'i{seed}' for seed in SEEDS]
  images = [drawn(seed) for seed in SEEDS]
  shares = [w / w.sum() for _, _, w in images]
  for metric, classes, skip in (('ged[v,all]', range(3), False), (SPEC[1], (1, 2), True)):
    for i, (labels, probs, _) in enumerate(images):
      want = plain(probs.argmax(-1), shares[i], labels, classes, skip)
      for name in names:
        assert scene.values(results, name, metric)[i] == pytest.approx(want['ged[v]'], abs=1e-5)
        if metric == 'ged[v,all]':
          got = scene.values(results, name, 'dice_max[all]')[i]
          assert got == pytest.approx(want['dice_max'], abs=1e-5)
  mean = [np.tensordot(w, p, (0, 0)) for w, (_, p, _) in zip(shares, images, strict=True)]
  nll, brier, _ = calibration(mean, [labels for labels, _, _ in images])
  for name in names:
    scalars = results.scalars(name)
    assert scalars['nll'] == pytest.approx(nll, rel=1e-4)
    assert scalars['brier'] == pytest.approx(brier, rel=1e-4)
  said = [line for line in results.remarks() if 'ged[u,all]' in line]
  assert said == [f'{name} has no ged[u,all]: weights, not draws: see [v].' for name in names]


def test_files_of_a_sample_or_a_reader_each_are_those_of_an_image(uneven, tmp_path, capsys):
  results = scored([uneven / 'folders'], uneven / 'beside', tmp_path / 'out')
  messages = capsys.readouterr().err
  assert 'one file for each sample, IMAGE/NUMBER (1 to 4 for each image), labels one' in messages
  for i, seed in enumerate(SEEDS):
    labels, probs, _ = drawn(seed)
    n = len(probs)
    want = plain(probs.argmax(-1), np.full(n, 1 / n), labels, range(3))
    for name in ('ged[v]', 'ged[u]', 'hm_iou'):
      metric = name.replace(']', ',all]') if '[' in name else f'{name}[all]'
      got = scene.values(results, 'folders', metric)[i]
      if n == 1 and name == 'ged[u]':
        assert np.isnan(got)
      else:
        assert got == pytest.approx(want[name], abs=1e-5), (seed, name)


def test_a_list_of_pairs_names_patients_and_pictures(uneven, tmp_path):
  rows = ['prediction,label,group,image']
  for seed in SEEDS:
    labels, _, _ = drawn(seed)
    np.savez(tmp_path / f'i{seed}.npz', readers=labels, other=labels[:1])
    Image.fromarray(np.full((12, 14, 3), 40 * seed, np.uint8)).save(tmp_path / f'{seed}.png')
    # a relative path starts from the predictions, where there is a file of this name too
    rows.append(f'i{seed}.npz,{tmp_path}/i{seed}.npz,patient {seed // 2},{seed}.png')
  (tmp_path / 'pairs.csv').write_text('\n'.join(rows))
  shutil.copytree(uneven / 'last', tmp_path / 'last')
  listed = scored([tmp_path / 'last'], tmp_path / 'pairs.csv', tmp_path / 'out')
  plain = scored([uneven / 'last'], uneven / 'own', tmp_path / 'out')
  assert listed.units == (2, 'groups')
  assert plain.units == (4, 'images')
  assert listed.scalars() == pytest.approx(plain.scalars(), nan_ok=True)
  data = Dataset([('last', str(tmp_path / 'last'))], str(tmp_path / 'pairs.csv'))
  image = next(data.batches())['image'][0]
  assert image.shape == (6, 8, 3)
  assert not image.any()
  assert data[3]['image'].min() == 120


def test_logits_of_another_size_are_resized(tmp_path):
  rng = np.random.default_rng(0)
  for part in ('small', 'full', 'labels'):
    (tmp_path / part).mkdir()
  small = rng.normal(size=(3, 4, 4, CLASSES)).astype(np.float32)
  full = jax.image.resize(small, (3, 8, 8, CLASSES), 'bilinear')
  np.savez(tmp_path / 'small/a.npz', samples=np.moveaxis(small, -1, 1))
  np.savez(tmp_path / 'full/a.npz', samples=full)
  np.save(tmp_path / 'labels/a.npy', rng.integers(0, CLASSES, (2, 8, 8)))
  with pytest.raises(UserError, match='4 x 4 pixels; its label is 8 x 8\n  give --resize bilinear'):
    scored([tmp_path / 'small'], tmp_path / 'labels', tmp_path / 'out', classes='a,b,c')
  options = dict(classes='a,b,c', kind='logits', resize='bilinear')
  given = [tmp_path / 'small', tmp_path / 'full']
  results = scored(given, tmp_path / 'labels', tmp_path / 'out', **options)
  assert results.info.class_names == ('a', 'b', 'c')
  assert results.scalars('small') == pytest.approx(results.scalars('full'), abs=1e-5)


def test_foreground_probabilities_of_samples(tmp_path):
  """Floats [N, H, W] of two classes, under either name, are [N, H, W, 2]."""
  rng = np.random.default_rng(0)
  for part in ('one', 'named', 'both', 'labels'):
    (tmp_path / part).mkdir()
  p = rng.uniform(0, 1, (5, 8, 8)).astype(np.float32)
  np.save(tmp_path / 'one/a.npy', p)
  np.savez(tmp_path / 'named/a.npz', samples=p[:2])
  np.savez(tmp_path / 'both/a.npz', samples=np.stack([1 - p, p], -1)[:2])
  np.save(tmp_path / 'labels/a.npy', rng.integers(0, 2, (2, 8, 8)))
  given, spec = [tmp_path / n for n in ('one', 'named', 'both')], ('ged[v]', 'nll', 'ece')
  results = scored(given, tmp_path / 'labels', tmp_path / 'out', classes='2', metrics=spec)
  assert results.scalars('named') == pytest.approx(results.scalars('both'), abs=1e-6)
  labels = np.load(tmp_path / 'labels/a.npy')
  want = plain(p > 0.5, np.full(5, 1 / 5), labels, (1,))
  assert scene.values(results, 'one', 'ged[v]')[0] == pytest.approx(want['ged[v]'], abs=1e-5)


def test_what_void_pixels_hold_changes_no_score(uneven, tmp_path):
  shutil.copytree(uneven / 'maps', tmp_path / 'other')
  for seed in SEEDS:
    labels, probs, weight = drawn(seed)
    nobody = (labels == VOID).all(0)
    assert nobody.any()
    probs[:, nobody] = np.eye(CLASSES)[2]
    maps = dict(samples=probs.argmax(-1), probabilities=probs, weights=weight)
    np.savez(tmp_path / f'other/i{seed}.npz', **maps)
  given = [uneven / 'maps', tmp_path / 'other']
  results = scored(given, uneven / 'own', tmp_path / 'out')
  for name in SPEC:
    if np.isfinite(results.scalars('maps')[name]):
      one, two = results.scalars('maps')[name], results.scalars('other')[name]
      assert one == pytest.approx(two, abs=1e-6), name


def test_single_maps_and_probabilities_have_what_they_can(tmp_path):
  rng = np.random.default_rng(1)
  for part in ('maps', 'probs', 'labels'):
    (tmp_path / part).mkdir()
  for k in range(3):
    x = scene.example(k + 1)
    Image.fromarray(x['labels'][0].astype(np.uint8)).save(tmp_path / f'labels/im_{k}.png')
    p = np.clip(x['labels'][0] * 0.7 + rng.uniform(0, 0.3, (16, 16)), 0, 1).astype(np.float32)
    np.save(tmp_path / f'probs/im_{k}.npy', np.stack([1 - p, p]))
    Image.fromarray((p > 0.5).astype(np.uint8)).save(tmp_path / f'maps/im_{k}.png')
  given = [str(tmp_path / n) for n in ('probs', 'maps')]
  results, _ = command.evaluate(given, str(tmp_path / 'labels'), tmp_path / 'out')
  names = [m.name for m in results.plan.metrics]
  assert names[:7] == ['miou', 'dice_max', 'ece', 'ece[top]', 'ece[listed]', 'nll', 'brier']
  assert names[7:] == [*command.OF_PIXELS, 'dice_soft[absent=1]', 'dice_soft[absent=skip]']
  assert results.scalars('maps')['miou'] == results.scalars('probs')['miou']
  assert np.isfinite([*results.scalars('probs').values()][:9]).all()  # of errors there are none
  assert np.isnan(results.scalars('maps')['nll'])
  (said,) = (line for line in results.remarks() if line.startswith('maps has no'))
  listed = ', '.join(names[2:])
  assert said == f'maps has no {listed}: one label map says nothing of confidence.'
  assert 'one label map says nothing' in (tmp_path / 'out' / 'report.html').read_text()
