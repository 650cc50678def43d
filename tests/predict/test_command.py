"""car-jax predict, from files of many kinds to files of the same size and geometry."""

import csv
import json
import pathlib
import re

import nibabel
import numpy as np
import pytest
from PIL import Image

import car_jax
from car_jax import lock, pictures
from car_jax.commands import predict
from car_jax.errors import UserError
from car_jax.metrics import stochastic
from car_jax.predict import rows, writing
from car_jax.predict.run import Run, begin
from tests.predict.models import (
  saved,
  scene,
  units,
  write_nifti,
  write_picture,
  write_series,
)
from tests.report import test_browser

AFFINE = np.array([[-0.7, 0, 0, 30], [0, -0.9, 0, 40], [0, 0, 2.5, -100], [0, 0, 0, 1.0]])
SIZES = [(32, 32), (24, 40), (37, 21), (48, 60)]
COUNTED = ('image', 'file', 'size', 'area: background', 'area: disc 1')
FORMATS = ('png', 'jpg', 'tif', 'bmp', 'webp', 'npy')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return saved(tmp_path_factory.mktemp('run'), 'mose', info=dict(range='0%,100%'))


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
  """Thirty pictures of six formats, four sizes and two depths, a volume and a series."""
  place = tmp_path_factory.mktemp('inputs')
  for k, (height, width) in enumerate(SIZES):
    for form in FORMATS:
      write_picture(place / f'{form}s' / f'{k}.{form}', scene(height, width, k))
    deep = scene(height, width, 9, colour=False).astype(np.uint16) * 100
    write_picture(place / f'deep{k}.png', deep)
  write_picture(place / 'same.png', scene(32, 32, 7))
  write_picture(place / 'same.bmp', scene(32, 32, 8))
  volume = units(5, 28, 20)
  write_nifti(place / 'volume.nii.gz', volume, AFFINE)
  write_series(place / 'series', volume)
  return place


@pytest.fixture(scope='module')
def out(run, inputs, tmp_path_factory):
  """All of them, predicted."""
  out = tmp_path_factory.mktemp('out') / 'out'
  assert predict.main([str(run), str(inputs), '--out', str(out), '--samples', '3']) == 0
  return out


def read(path):
  with Image.open(path) as picture:
    return np.asarray(picture)


def table(out):
  with (out / 'predictions.csv').open(newline='') as file:
    return {row['image']: row for row in csv.DictReader(file)}


def test_masks_have_the_size_of_their_pictures(out, inputs):
  listed = table(out)
  assert len(listed) == 32
  for name, row in listed.items():
    if name in ('series', 'volume'):
      continue
    path = pathlib.Path(row['file'])
    array = np.load(path) if path.suffix == '.npy' else pictures.open_picture(path).values
    height, width = array.shape[:2]
    assert read(out / 'masks' / f'{name}.png').shape == (height, width)
    assert read(out / 'colours' / f'{name}.png').shape == (height, width, 3)
    assert row['size'] == f'{width}x{height}'


def test_volumes_keep_their_geometry(out, inputs):
  given = nibabel.load(inputs / 'volume.nii.gz')
  for name in ('volume', 'series'):
    for kind, last in (('masks', ()), ('samples', (3,)), ('probabilities', (2,)), ('entropy', ())):
      made = nibabel.load(out / kind / f'{name}.nii.gz')
      assert made.shape == (*given.shape, *last)
      np.testing.assert_allclose(made.affine, given.affine, atol=1e-5)
    assert table(out)[name]['size'] == '20x28x5'
    assert table(out)[name]['spacing_mm'] == '0.7x0.9x2.5'


def test_files_say_what_the_model_does(out, run, inputs):
  model = car_jax.load(run)
  assert {'same_png', 'same_bmp', 'deep0'} < {*table(out)}
  for name in ('pngs/0', 'npys/3', 'deep2'):
    path = table(out)[name]['file']
    expected = model.predict(path, samples=3, names=[name])
    np.testing.assert_array_equal(read(out / 'masks' / f'{name}.png'), expected.mask)
    samples = np.load(out / 'samples' / f'{name}.npz')
    np.testing.assert_array_equal(samples['samples'], expected.samples)
    np.testing.assert_allclose(samples['weights'], expected.weights)
    probs = np.load(out / 'probabilities' / f'{name}.npz')['probabilities']
    np.testing.assert_allclose(probs, expected.probabilities, atol=1e-3)
    maps = np.load(out / 'uncertainty' / f'{name}.npz')
    scales = {'entropy': np.log(2), 'mutual_information': np.log(2)}
    for key, most in scales.items():
      np.testing.assert_allclose(maps[key], getattr(expected, key), atol=1e-5)
      picture = read(out / key / f'{name}.png')
      np.testing.assert_allclose(picture / 65535 * most, maps[key], atol=1e-4)
    (second,) = (out / 'probability_maps' / name).glob('1_*.png')
    scaled = read(second) / 65535
    np.testing.assert_allclose(scaled, expected.probabilities[..., 1], atol=1e-4)


def test_a_volume_is_its_slices(out, run, inputs):
  model, volume = car_jax.load(run), units(5, 28, 20)
  stretched = [(x - x.min()) / (x.max() - x.min()) for x in volume.astype(np.float64)]
  slices = [np.rint(255 * x).astype(np.uint8) for x in stretched]
  found = [model.predict(x, samples=3, names=['volume']) for x in slices]
  mask = np.asarray(nibabel.load(out / 'masks' / 'volume.nii.gz').dataobj)
  entropy = np.asarray(nibabel.load(out / 'entropy' / 'volume.nii.gz').dataobj)
  samples = np.asarray(nibabel.load(out / 'samples' / 'volume.nii.gz').dataobj)
  for k, one in enumerate(found):  # X is columns, Y is rows
    np.testing.assert_array_equal(mask[..., k], one.mask.T)
    np.testing.assert_allclose(entropy[..., k], one.entropy.T, atol=1e-5)
    np.testing.assert_array_equal(samples[:, :, k, 1], one.samples[1].T)
  again = model.predict(inputs / 'volume.nii.gz', samples=3)
  np.testing.assert_array_equal(again.mask, mask)
  np.testing.assert_array_equal(np.moveaxis(again.samples, 0, -1), samples)


def test_the_table_holds_what_the_files_do(out):
  row = table(out)['tifs/3']
  maps = np.load(out / 'uncertainty' / 'tifs' / '3.npz')
  samples = np.load(out / 'samples' / 'tifs' / '3.npz')['samples']
  mask = read(out / 'masks' / 'tifs' / '3.png')
  assert int(row['area: background']) == (mask == 0).sum()
  assert int(row['area: disc 1']) == (mask == 1).sum()
  assert float(row['mean_entropy']) == pytest.approx(maps['entropy'].mean(), rel=1e-5)
  assert float(row['max_entropy']) == pytest.approx(maps['entropy'].max(), rel=1e-5)
  mutual = maps['mutual_information'].mean()
  assert float(row['mean_mutual_information']) == pytest.approx(mutual, rel=1e-4)
  dice = stochastic.pairwise_dice(samples[None].astype(np.int32), classes=(1,))
  assert float(row['pairwise_dice']) == pytest.approx(float(dice[0]), rel=1e-5)


def test_dice_of_samples_as_the_scores_have_it(monkeypatch):
  samples = np.random.default_rng(0).integers(0, 4, (5, 13, 11))
  monkeypatch.setattr(rows, 'BLOCK', 32)
  found = rows.pairwise_dice(samples, np.full(5, 0.2), (0, 1, 3, 4))
  expected = stochastic.pairwise_dice(samples[None].astype(np.int32), classes=(0, 1, 3, 4))
  assert found == pytest.approx(float(expected[0]), rel=1e-5)
  assert np.isnan(rows.pairwise_dice(samples[:1], np.ones(1), (1,)))


def test_the_page(out, tmp_path):
  text = (out / 'index.html').read_text()
  assert len(text) < 200_000
  for path in re.findall(r'(?:src|href)="(pages/[^"]+)"', text):
    assert (out / path).exists()
  assert text.count('<img ') == 3 * 32
  values = [float(x) for x in re.findall(r'</span></th><td>([\d.]+)</td>', text)]
  assert values == sorted(values, reverse=True)
  if test_browser.BROWSER is None:
    pytest.skip('no browser')
  for width in (1400, 420):
    address = f'{(out / "index.html").as_uri()}#check=1&sort=-mean_entropy'
    dom = test_browser.browse(tmp_path, address, f'--window-size={width},900', '--dump-dom')
    assert test_browser.root(dom) == {'ready': '1', 'overflow': ''}


def test_what_was_stopped_goes_on(run, inputs, out, tmp_path, monkeypatch, capsys):
  """A kill in the middle: whole files alone, and the second run does what is left."""
  args = [str(run), str(inputs), '--out', str(tmp_path / 'o'), '--samples', '3']
  take, count = Run._take, []

  def interrupted(self, *given):
    count.append(1)
    if len(count) > 4:
      raise KeyboardInterrupt
    take(self, *given)

  monkeypatch.setattr(Run, '_take', interrupted)
  with pytest.raises(KeyboardInterrupt):
    predict.main(args)
  written = {p.relative_to(tmp_path / 'o'): p for p in (tmp_path / 'o').rglob('*') if p.is_file()}
  assert not [path for path in written if '.part' in path.name]
  done = [path for path in written if path.parts[0] == 'done']
  assert 0 < len(done) < 32
  (tmp_path / 'o' / 'samples' / 'a.npz.1.part').touch()
  times = {path: file.stat().st_mtime_ns for path, file in written.items()}
  monkeypatch.setattr(Run, '_take', take)
  assert predict.main(args) == 0
  assert f'{len(done)} files were complete before' in capsys.readouterr().out
  for path in done:
    assert (tmp_path / 'o' / path).stat().st_mtime_ns == times[path]
  assert [*table(tmp_path / 'o')] == [*table(out)]
  for one, two in zip(table(tmp_path / 'o').values(), table(out).values(), strict=True):
    assert [one[k] for k in COUNTED] == [two[k] for k in COUNTED]
    assert float(one['mean_entropy']) == pytest.approx(float(two['mean_entropy']), rel=1e-5)
  assert not [*(tmp_path / 'o').rglob('*.part')]
  for path in (out / 'samples').rglob('*.npz'):
    other = tmp_path / 'o' / path.relative_to(out)
    np.testing.assert_array_equal(np.load(path)['samples'], np.load(other)['samples'])


def test_other_settings_do_not_go_into_the_same_folder(run, tmp_path, capsys):
  write_picture(tmp_path / 'in' / 'a.png', scene(32, 32, 0))
  args = [str(run), str(tmp_path / 'in'), '--out', str(tmp_path / 'o'), '--save', 'masks']
  assert predict.main([*args, '--samples', '2']) == 0
  before = (tmp_path / 'o' / 'masks' / 'a.png').stat().st_mtime_ns
  assert not (tmp_path / 'o' / 'samples').exists()
  assert predict.main([*args, '--samples', '3']) == 2
  assert 'was made with --samples 2, not --samples 3' in capsys.readouterr().err
  kept = json.loads((tmp_path / 'o' / 'settings.json').read_text())
  for model, now in ((kept['model'], ' as it is now'), ('runs/other', '')):
    old = kept | dict(weights=1, model=model)
    (tmp_path / 'o' / 'settings.json').write_text(json.dumps(old))
    with pytest.raises(UserError) as e:
      begin(tmp_path / 'o', kept | dict(weights=2), False)
    assert f'with other weights: those of {model}, not of {kept["model"]}{now}\n' in str(e.value)
  (tmp_path / 'o' / 'settings.json').write_text(json.dumps(kept))
  write_picture(tmp_path / 'in' / 'b.png', scene(32, 32, 1))
  assert predict.main([*args, '--samples', '2']) == 0
  assert [*table(tmp_path / 'o')] == ['a', 'b']
  assert (tmp_path / 'o' / 'masks' / 'a.png').stat().st_mtime_ns == before
  assert predict.main([*args, '--samples', '3', '--new']) == 0
  assert (tmp_path / 'o' / 'masks' / 'a.png').stat().st_mtime_ns > before
  write_picture(tmp_path / 'c.png', scene(32, 32, 1))
  two = [str(tmp_path / 'in' / 'b.png'), str(tmp_path / 'c.png')]
  assert (
    predict.main([str(run), *two, *args[2:], '--samples', '3']) == 0
  )  # other files: the table keeps those of before
  assert {*table(tmp_path / 'o')} == {'a', 'b', 'c'}
  write_picture(tmp_path / 'other' / 'a.png', scene(32, 32, 5))
  assert predict.main([str(run), str(tmp_path / 'other'), *args[2:], '--samples', '3']) == 2
  assert 'holds a of ' in capsys.readouterr().err
  write_picture(tmp_path / 'in' / 'a.bmp', scene(32, 32, 5))
  assert predict.main([*args, '--samples', '3']) == 0  # a.png has another name now
  assert {*table(tmp_path / 'o')} == {'a_bmp', 'a_png', 'b', 'c'}
  for more in ((), ('--new',)):
    with lock.exclusive(tmp_path / 'o'):
      assert predict.main([*args, '--samples', '4', *more]) == 2
      assert 'is being predicted to by process' in capsys.readouterr().err
  assert {*table(tmp_path / 'o')} == {'a_bmp', 'a_png', 'b', 'c'}
  assert json.loads((tmp_path / 'o' / 'settings.json').read_text())['samples'] == 3
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'x').write_text('')
  assert predict.main([*args[:3], str(tmp_path / 'mine'), '--new']) == 2
  assert (tmp_path / 'mine' / 'x').exists()


@pytest.mark.parametrize(('variant', 'answers'), [('sac', 'student argmax'), ('lts', 'argmax')])
def test_a_model_of_one_answer_says_so_and_has_no_mutual_information(
  variant, answers, tmp_path, capsys
):
  run, out = saved(tmp_path / 'run', variant), tmp_path / 'out'
  write_picture(tmp_path / 'in' / 'a.png', scene(32, 32, 0))
  write_nifti(tmp_path / 'in' / 'b.nii.gz', units(2, 32, 32), np.eye(4))
  args = [str(run), str(tmp_path / 'in'), '--out', str(out), '--range=-900,400']
  assert predict.main([*args, '--samples', '4']) == 0
  said = capsys.readouterr().out.splitlines()
  assert f', {answers}, of {run}' in said[0]
  assert said[3].startswith('--samples 4: this model has one answer')
  assert not (out / 'mutual_information').exists()
  assert (out / 'entropy' / 'b.nii.gz').exists()
  with np.load(out / 'uncertainty' / 'a.npz') as maps:
    assert [*maps] == ['entropy']
  assert {row['mean_mutual_information'] for row in table(out).values()} == {''}
  assert 'mutual' not in (out / 'index.html').read_text()
  assert predict.main(args) == 0  # eight samples of one answer are one, too
  assert '--samples' not in capsys.readouterr().out


def test_what_cannot_be_read_is_named_and_the_rest_is_done(tmp_path, capsys):
  run = saved(tmp_path / 'run', 'supervised')
  place, out = tmp_path / 'in', tmp_path / 'o'
  write_picture(place / 'a.png', scene(32, 32, 0))
  (place / 'b.png').write_bytes((place / 'a.png').read_bytes()[:200])
  write_picture(place / 'deep1.png', scene(32, 32, 1, colour=False).astype(np.uint16) * 9)
  write_nifti(place / 'deep2.nii.gz', units(2, 32, 32), np.eye(4))
  args = [str(run), str(place), '--out', str(out), '--save', 'masks,uncertainty']
  assert predict.main(args) == 1
  printed = capsys.readouterr().err
  assert 'not read: 3' in printed
  assert 'b.png cannot be read as a picture (truncated' in printed
  assert printed.count('--range=LOW,HIGH') == 1
  assert [*table(out)] == ['a']
  assert table(out)['a']['pairwise_dice'] == ''  # one segmentation
  (place / 'b.png').unlink()
  assert predict.main([*args, '--range', '0%,100%']) == 0  # a range may be added
  assert [*table(out)] == ['a', 'deep1', 'deep2']
  assert predict.main([*args, '--range', '1%,99%']) == 2


def test_where_nothing_can_be_read_nothing_is_written(tmp_path, capsys):
  run = saved(tmp_path / 'run', 'supervised')
  place, out = tmp_path / 'in', tmp_path / 'o'
  write_picture(place / 'a.png', scene(32, 32, 0))
  (place / 'a.png').write_bytes((place / 'a.png').read_bytes()[:200])
  assert predict.main([str(run), str(place), '--out', str(out)]) == 2
  printed = capsys.readouterr()
  assert 'error: nothing was predicted; no input can be read:' in printed.err
  assert 'a.png cannot be read as a picture' in printed.err
  assert 'page:' not in printed.out
  assert not (out / 'index.html').exists()


@pytest.mark.parametrize(
  ('flags', 'text'),
  [
    (('--save', 'maks'), "cannot save 'maks'\n  did you mean: masks"),
    (('--samples', '0'), '--samples cannot be 0'),
    (('--crop', 'x'), "--crop cannot be 'x'"),
    (('--crop', '8', '--stride', '9'), 'windows of 8 are 1 to 8 apart'),
    (('--range', '5,1'), "--range cannot be '5,1'"),
    (('--config.method.experts=2',), 'cannot be changed after training'),
    (('--calibrator', 'nowhere.npz'), 'no calibrator nowhere.npz'),
  ],
)
def test_mistakes_are_one_message(run, tmp_path, capsys, flags, text):
  write_picture(tmp_path / 'a.png', scene(32, 32, 0))
  args = [str(run), str(tmp_path / 'a.png'), '--out', str(tmp_path / 'o')]
  assert predict.main([*args, *flags]) == 2
  assert text in capsys.readouterr().err
  assert not (tmp_path / 'o' / 'predictions.csv').exists()


def test_large_images_go_by_windows_and_it_is_said(run, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr('car_jax.predictor.MOST_WHOLE', 40 * 50)
  for name, size in (('a', (40, 50)), ('b', (41, 50))):
    write_picture(tmp_path / f'{name}.png', scene(*size, 0))
  inputs = [str(tmp_path / 'a.png'), str(tmp_path / 'b.png')]
  assert predict.main([str(run), *inputs, '--out', str(tmp_path / 'o'), '--samples', '2']) == 0
  printed = capsys.readouterr().err
  assert 'b.png and others of more than 2,000 pixels go by windows of 32x32, 21' in printed
  model = car_jax.load(run)
  settings = json.loads((tmp_path / 'o' / 'settings.json').read_text())
  assert settings['windows'] == {'crop': None, 'stride': None}
  for name, how in (('a', dict(crop=0)), ('b', dict(crop=32, stride=21))):
    one = model.predict(tmp_path / f'{name}.png', samples=2, **how)
    found = np.load(tmp_path / 'o' / 'uncertainty' / f'{name}.npz')['entropy']
    np.testing.assert_allclose(found, one.entropy, atol=1e-5)


def test_an_overlay_leaves_the_background_as_it_is():
  image, mask = scene(6, 8, 0), np.arange(48).reshape(6, 8) % 3
  drawn = writing.overlaid(image, mask, np.array([[0, 0, 0], [200, 0, 0], [0, 0, 9]], np.uint8))
  np.testing.assert_array_equal(drawn[mask == 0], image[mask == 0])
  expected = (image[mask == 1] + np.array([200, 0, 0])) // 2
  np.testing.assert_array_equal(drawn[mask == 1], expected)
