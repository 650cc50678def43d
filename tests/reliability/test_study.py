"""A whole study of two small runs on drawn scenes: its numbers, its files, what it skips."""

import json
import os
import shutil

import cv2
import jax
import numpy as np
import pytest
from scipy.special import softmax

from car_jax import sharding
from car_jax.commands import eval as evaluation
from car_jax.errors import UserError
from car_jax.evaluate import cell as cells
from car_jax.metrics import calibration, confidence_groups, ranking
from car_jax.reliability import command, plan, segmenters, study, study_options
from tests.reliability import runs


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """Folder of data, set -> prepared name, model -> run."""
  folder = tmp_path_factory.mktemp('study')
  names = {'clear': runs.scenes(folder), 'fog': runs.scenes(folder, domain='fog')}
  train_on = runs.scenes(folder, unknown=0.0, part='all', count=8)
  models = {k: runs.trained(folder / k, k, folder, train_on) for k in ('segformer', 'car')}
  return folder, names, models


@pytest.fixture(scope='module')
def finished(made):
  folder, names, models = made
  config = runs.study(
    {'segformer': models['segformer']}, folder, names, pools={'all': ('clear', 'fog')}
  )
  full = study_options.defaults()
  full.update(config)
  found, page = command.run(full, str(folder / 'out'), 'car-jax eval')
  return full, found, page


def cell(found, name, calibrator='none', model='segformer'):
  wanted = (model, name, calibrator)
  return next(c for c in found['cells'] if (c['model'], c['set'], c['calibrator']) == wanted)


def predictions(full, name):
  """Logits, labels and unknown of all pixels of a set, in numpy."""
  one = study.Study(plan.plan(full), None, sharding.make_mesh(), lambda text: None)
  parts = [
    {k: np.asarray(v)[b.keep] for k, v in runs.arrays(b).items()}
    for b in one.segmenter('segformer').batches(one.plan.sets[name])
  ]
  flat = lambda k, *s: np.concatenate([p[k].reshape(-1, *s) for p in parts])
  return flat('logits', parts[0]['logits'].shape[-1]), flat('labels'), flat('unknown')


def test_a_cell_is_what_plain_numpy_finds(finished):
  full, found, _ = finished
  logits, labels, unknown = predictions(full, 'clear')
  probs, seen = softmax(logits.astype(np.float64), -1), labels != 255
  hits, conf = probs.argmax(-1) == labels, probs.max(-1)
  values = cell(found, 'clear')['values']
  groups = confidence_groups.tied(np.float32(conf[seen]), hits[seen])
  want = calibration.ece(confidence_groups.binned(groups), seen.sum())
  assert values['ece']['value'] == pytest.approx(want, abs=1e-4)
  want = ranking.auroc(*ranking.by_value(-conf[seen], ~hits[seen]))
  assert values['auroc']['value'] == pytest.approx(want, abs=values['auroc']['bound'] + 1e-6)
  assert unknown.any()
  both = seen | unknown
  top = logits.max(-1)[both]
  want = ranking.auroc(*ranking.by_value(-top, unknown[both]))
  value = values['unknown_auroc[max_logit]']
  assert value['value'] == pytest.approx(want, abs=value['bound'] + 1e-6)
  assert value['low'] <= value['value'] <= value['high']


def risk_and_confidence(full, name):
  """Of each image, in numpy: one minus the mean Dice of the classes there, minus mean entropy."""
  out = []
  shape = (4, 32, 64)
  for logits, label, unknown in zip(
    *(x.reshape(*shape, *x.shape[1:]) for x in predictions(full, name)), strict=True
  ):
    probs, seen = softmax(logits.astype(np.float64), -1), (label != 255) & ~unknown
    said = probs.argmax(-1)
    each = [((said == c) & seen, (label == c) & seen) for c in range(probs.shape[-1])]
    dice = [2 * np.sum(a & b) / (a.sum() + b.sum()) for a, b in each if a.any() or b.any()]
    entropy = -np.sum(probs * np.log(np.maximum(probs, 1e-300)), -1)
    out.append((1 - np.mean(dice), -entropy[seen].mean()))
  return np.array(out).T


def test_scores_of_failing_images_are_what_plain_numpy_finds(finished):
  full, found, page = finished
  parts = {s: risk_and_confidence(full, s) for s in ('clear', 'fog')}
  parts['all'] = np.concatenate([*parts.values()], 1)
  for name, (risk, sure) in parts.items():
    order = np.argsort(-sure)
    kept = np.cumsum(risk[order]) / np.arange(1, len(risk) + 1)
    value = cell(found, name)['values']['image_aurc']
    assert value['value'] == pytest.approx(kept.mean(), abs=1e-4)
    assert value['low'] <= value['value'] <= value['high']
    (curve,) = [e for e in found['failing'] if e['set'] == name]
    np.testing.assert_allclose(curve['risk'], kept, atol=1e-4)
    assert curve['confidence'] == 'mean'
  assert 'Does it know which images fail?' in page.read_text()
  assert '## AURC of images' in (page.parent / 'study.md').read_text()


def test_the_fitted_temperature_lowers_nll_and_is_applied(finished):
  full, found, page = finished
  fit = next(f for f in found['fits'] if f['calibrator'] == 'temperature')
  assert fit['nll_after'] <= fit['nll_before']
  logits, labels, _ = predictions(full, 'fog')
  probs = softmax(logits / fit['temperatures'][0], -1)
  seen = labels != 255
  groups = confidence_groups.tied(
    np.float32(probs.max(-1)[seen]), (probs.argmax(-1) == labels)[seen]
  )
  want = calibration.ece(confidence_groups.binned(groups), seen.sum())
  assert cell(found, 'fog', 'temperature')['values']['ece']['value'] == pytest.approx(
    want, abs=1e-4
  )
  assert (page.parent / 'calibrators' / 'segformer' / 'temperature.npz').is_file()


def test_a_pool_scores_the_images_of_its_sets_together(finished):
  full, found, page = finished
  parts = [predictions(full, name) for name in ('clear', 'fog')]
  logits, labels, _ = (np.concatenate(x) for x in zip(*parts, strict=True))
  seen = labels != 255
  said = logits.argmax(-1)[seen]
  classes = np.intersect1d(np.arange(logits.shape[-1]), np.union1d(labels[seen], said))
  ious = [
    np.sum((said == c) & (labels[seen] == c)) / np.sum((said == c) | (labels[seen] == c))
    for c in classes
  ]
  assert cell(found, 'all')['values']['miou']['value'] == pytest.approx(np.mean(ious))
  text = page.read_text()
  for part in ('clear', 'fog', 'temperature', 'clusters', 'data:image/png'):
    assert part in text
  assert json.loads((page.parent / 'study.json').read_text()) == found
  assert 'segformer,all' in (page.parent / 'study.csv').read_text()


def test_what_is_done_is_skipped_and_what_changed_is_done_again(finished, monkeypatch):
  full, found, page = finished
  counted = []
  real = study.count.cells
  monkeypatch.setattr(
    study.count, 'cells', lambda b, m, c, *a, **k: counted.append([*c]) or real(b, m, c, *a, **k)
  )
  again, _ = command.run(full, str(page.parent), 'car-jax eval')
  assert counted == []
  assert again['cells'] == found['cells']
  (page.parent / 'cells' / 'segformer' / 'fog' / 'temperature.npz').unlink()
  again, _ = command.run(full, str(page.parent), 'car-jax eval')
  assert counted == [['temperature']]
  assert again['cells'] == found['cells']


def test_cells_are_marked_by_weights_data_and_calibrator(finished, made):
  full, _, page = finished
  folder, names, _ = made
  one = study.Study(plan.plan(full), page.parent, sharding.make_mesh(), lambda text: None)
  model, clear, fog = one.segmenter('segformer'), one.plan.sets['clear'], one.plan.sets['fog']
  fit = one.fits('segformer')['temperature'].calibrator
  mark = one._cell_print('segformer', fog, fit)
  assert mark != one._cell_print('segformer', clear, fit)
  assert mark != one._cell_print('segformer', fog, None)
  other = fit.replace(temperature=fit.temperature * np.float32(1.0001))
  assert mark != one._cell_print('segformer', fog, other)
  model._images = {}
  assert mark == one._cell_print('segformer', fog, fit)
  files = segmenters.prepared_files(dict(name=names['fog'], data_dir=str(folder)))
  before = files[-1].stat()
  os.utime(files[-1], ns=(before.st_atime_ns, before.st_mtime_ns + 1))
  model._images = {}
  assert mark != one._cell_print('segformer', fog, fit)
  os.utime(files[-1], ns=(before.st_atime_ns, before.st_mtime_ns))
  model._known, model.fingerprint = {}, 'other weights'
  assert mark != one._cell_print('segformer', fog, fit)


def test_sampled_and_exact_modes(finished, made):
  full, found, _ = finished
  folder, _, _ = made
  config = full.copy_and_resolve_references()
  config.sets = {'clear': config.sets.clear}
  config.pools, config.calibrators, config.exact = {}, {}, True
  config.measures = (*config.measures, 'object_auroc')
  exact, _ = command.run(config, str(folder / 'exact'), '')
  for name, value in cell(found, 'clear')['values'].items():
    other = cell(exact, 'clear')['values'][name]
    assert other['bound'] == 0
    assert abs(other['value'] - value['value']) <= value['bound'] + 1e-6
  assert cell(exact, 'clear')['values']['object_auroc']['bound'] is None  # from histograms
  config.exact, config.sampled = False, 200
  few, _ = command.run(config, str(folder / 'few'), '')
  assert few['sets'][0]['pixels'] == 200 * 4
  assert cell(few, 'clear')['values']['miou']['value'] == pytest.approx(
    cell(found, 'clear')['values']['miou']['value'], abs=0.1
  )


def test_a_stochastic_model_is_scored_by_its_mean_and_its_disagreement(made):
  folder, names, models = made
  config = study_options.defaults()
  spec = {'car': models['car']}
  config.update(runs.study(spec, folder, names, calibrators={}, calibrate_on={}, worst=0))
  config.models = {'car': dict(path=str(models['car']), samples=3)}
  config.sets = {'clear': config.sets.clear}
  config.measures = ('miou', 'auroc[disagreement]', 'unknown_auroc[max_logit]')
  found, _ = command.run(config, str(folder / 'stochastic'), '')
  values = cell(found, 'clear', model='car')['values']
  assert 0 < values['auroc[disagreement]']['value'] < 1
  assert 'unknown_auroc[max_logit]' not in values  # logarithms of probabilities are no logits
  assert '3 samples' in found['models'][0]['about']


def test_the_command_line(finished, made, capsys):
  folder, names, models = made
  path = folder / 'small.py'
  path.write_text(
    'import pathlib\nfrom tests.reliability import runs\n\ndef get_config():\n'
    f'  return runs.study({dict(a="nowhere")!r}, pathlib.Path({str(folder)!r}), {names!r},'
    ' calibrators={}, calibrate_on={}, worst=0)\n'
  )
  out = str(folder / 'command')
  base = ['--config', str(path), '--out', out]
  assert evaluation.main(base) == 2
  assert 'no run and no folder of predictions nowhere' in capsys.readouterr().err
  fitted = folder / 'out' / 'calibrators' / 'segformer' / 'temperature.npz'
  more = ['--checkpoint', f'seg={models["segformer"]}', '--calibrator', f'T={fitted}']
  assert evaluation.main([*base, *more, '--config.resamples=5']) == 0
  said = capsys.readouterr().out
  assert 'mIoU' in said
  assert said.splitlines()[-1] == f'report: {out}/report.html'
  rows = (folder / 'command' / 'study.csv').read_text()
  assert 'seg,fog' in rows
  assert ',T,' in rows


def test_options_that_do_not_go_together(capsys):
  cases = {
    ('--checkpoint', 'x', '--predictions', 'y'): '--checkpoint and --predictions do not go',
    ('--predictions', 'y', '--save', 'logits'): '--save belongs to --checkpoint',
    ('--checkpoint', 'x', '--labels', 'y'): '--labels belongs to --predictions',
    ('--config', 'configs/reliability.py', '--save', 'logits'): '--save goes without --config',
    (): 'nothing to score',
    ('--config', 'configs/reliability.py', '--labels', 'x'): '--labels belongs to --predictions',
    ('--config', 'configs/smoke.py'): 'this config trains',
    ('--config', 'configs/reliability.py', '--calibrator', 'a.txt'): 'expected [NAME=]FILE.npz',
  }
  for arguments, message in cases.items():
    assert evaluation.main([*arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_damaged_cell_and_a_foreign_folder_are_told(finished, made, tmp_path):
  full, _, page = finished
  copy = tmp_path / 'copy'
  shutil.copytree(page.parent, copy)
  broken = copy / 'cells' / 'segformer' / 'fog' / 'none.npz'
  broken.write_bytes(broken.read_bytes()[:100])
  with pytest.raises(UserError, match='none.npz cannot be read'):
    command.run(full, str(copy), '')
  other = tmp_path / 'other'
  other.mkdir()
  (other / 'thesis.tex').write_text('')
  with pytest.raises(UserError, match='is not replaced'):
    command.run(full, str(other), '')


def test_models_of_other_classes_are_not_mixed(made, tmp_path):
  folder, names, models = made
  data = dict(name='fake', num_classes=3, readers=1, count=4, size=32)
  config = study_options.defaults()
  config.update(runs.study({'segformer': models['segformer']}, folder, names))
  config.sets = {'bare': dict(split='test')}
  with pytest.raises(UserError, match="is a run, and set 'bare' has no data"):
    command.run(config, str(tmp_path / 'out'), '')
  config.sets = {'fake': dict(data=data, split='test')}
  with pytest.raises(UserError, match='says 19 classes, fake has 3'):
    command.run(config, str(tmp_path / 'out'), '')
  config.sets = {'fake': dict(data=data | dict(readers=4, num_classes=19), split='test')}
  with pytest.raises(UserError, match='has 4 readers'):
    command.run(config, str(tmp_path / 'out'), '')


def test_counts_survive_their_file(finished, tmp_path):
  _, _, page = finished
  path = page.parent / 'cells' / 'segformer' / 'clear' / 'none.npz'
  first, about = cells.load(path)
  first.save(tmp_path / 'copy.npz', about)
  again, told = cells.load(tmp_path / 'copy.npz')
  assert told == about
  assert again.ids == first.ids
  jax.tree.map(np.testing.assert_array_equal, again.rows, first.rows)


@pytest.mark.slow
def test_saved_logits_and_files_of_a_script_score_as_the_run_does(finished, made, tmp_path):
  full, ours, _ = finished
  _, names, models = made
  c = full.copy_and_resolve_references()
  c.calibrators, c.calibrate_on = {}, {}
  change = [f'--config.data.name={names["clear"]}', '--config.report.split=test']
  out = ['--out', str(tmp_path / 'run' / 'report')]
  saved = ['--checkpoint', str(models['segformer']), '--save', 'logits', *out, *change]
  assert evaluation.main(saved) == 0
  arrays = str(tmp_path / 'run' / 'arrays')
  theirs, _ = command.run(
    command.with_models(c, predictions=[f'run={arrays}']), str(tmp_path / 'theirs'), ''
  )
  # and as files that a numpy script writes
  for kind in ('predictions', 'labels'):
    (tmp_path / kind).mkdir()
  logits = np.load(next((tmp_path / 'run' / 'arrays').rglob('logits.npy')))
  labels = np.load(tmp_path / 'run' / 'arrays' / 'readers.npy')[:, 0]
  for k, (x, y) in enumerate(zip(logits, labels, strict=True)):
    np.save(tmp_path / 'predictions' / f'{k}.npy', x)
    cv2.imwrite(str(tmp_path / 'labels' / f'{k}.png'), y)
  written = command.with_models(
    c, predictions=[f'run={tmp_path / "predictions"}'], labels=str(tmp_path / 'labels')
  )
  files, _ = command.run(written, str(tmp_path / 'files'), '')
  want = {k: v['value'] for k, v in cell(ours, 'clear')['values'].items()}
  assert 'unknown_auroc' in want
  for other in (theirs, files):
    found = {k: v['value'] for k, v in other['cells'][0]['values'].items()}
    assert found == pytest.approx(want, abs=1e-6)
