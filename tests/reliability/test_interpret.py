"""What arrays mean: their kind from the pixels that count, their size, maps of classes alone."""

import json
import zipfile

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.special import expit, softmax

from car_jax import arrays
from car_jax.commands import eval as evaluation
from car_jax.errors import UserError
from car_jax.predictions.sources import Files, LabelFiles
from car_jax.reliability import segmenters
from car_jax.reliability.interpret import Reading
from car_jax.reliability.pairing import Group

H, W, C = 12, 16, 3
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(H, W, C)).astype(np.float32)
PROBS = softmax(LOGITS, -1)
LABEL = RNG.integers(0, C, (H, W)).astype(np.uint8)
LABEL[:2] = 255


def pair(tmp_path, values, label=LABEL):
  cv2.imwrite(str(tmp_path / 'label.png'), label)
  path = tmp_path / f'x.{"npz" if isinstance(values, dict) else "npy"}'
  np.savez(path, **values) if isinstance(values, dict) else np.save(path, values)
  return {'x': Group('x', 'x', (path,), (tmp_path / 'label.png',))}


def read(groups, classes, **how):
  ((path, raw),) = Files('', '', groups).arrays('x')
  return segmenters.read(path, raw, LabelFiles(groups), 'x', Reading(classes, **how))


def probabilities(tmp_path, values, label=LABEL, classes=C, **how):
  found, own = read(pair(tmp_path, values, label), classes, **how)
  return softmax(found['logits'], -1), own


def test_void_pixels_do_not_decide_what_numbers_mean(tmp_path):
  empty = PROBS.copy()
  empty[:2] = 0  # was not predicted, and does not count
  found, own = probabilities(tmp_path, empty)
  assert not own
  np.testing.assert_allclose(found[2:], PROBS[2:], atol=1e-6)
  empty[2] = 0  # counts
  with pytest.raises(UserError, match=r'x.npy: logits or prob.*not all sum.*160 pixels'):
    probabilities(tmp_path, empty)
  assert probabilities(tmp_path, empty, kind='logits')[1]
  with pytest.raises(UserError, match='do not sum to one at 16 of 160 pixels that count'):
    probabilities(tmp_path, empty, kind='probabilities')
  with pytest.raises(UserError, match='do not sum to one at 16'):
    probabilities(tmp_path, {'probabilities': empty})
  assert probabilities(tmp_path, {'logits': empty})[1]


@pytest.mark.parametrize('scale', [0.9, 100, 255])
def test_other_scales_of_probabilities_are_not_taken_for_logits(tmp_path, scale):
  with pytest.raises(UserError, match=rf'they sum to {scale:g} .*\n  give --kind logits'):
    probabilities(tmp_path, PROBS * np.float32(scale))


def test_logits_and_probabilities_are_told_apart_in_every_layout(tmp_path):
  for values, own in ((LOGITS, True), (PROBS, False)):
    for x in (values, np.moveaxis(values, -1, 0), values[None], values.astype('>f8')):
      found, said = probabilities(tmp_path, x)
      assert said == own
      np.testing.assert_allclose(found, PROBS, atol=1e-6)
  everything_void = np.full_like(LABEL, 255)
  assert probabilities(tmp_path, LOGITS, everything_void)[1]


def test_one_channel_of_two_classes_is_the_second(tmp_path):
  label, x = np.minimum(LABEL, 1), LOGITS[..., 0]
  want = np.stack([expit(-x), expit(x)], -1)
  for values, own in ((x, True), (expit(x), False)):
    for shaped in (values, values[None], values[..., None]):
      found, said = probabilities(tmp_path, shaped, label, 2)
      assert said == own
      np.testing.assert_allclose(found, want, atol=1e-6)
  with pytest.raises(UserError, match='probabilities from -'):
    probabilities(tmp_path, x[None], label, 2, kind='probabilities')
  with pytest.raises(UserError, match='x.npy: 1 classes; 3 are named'):
    probabilities(tmp_path, expit(x)[None])


@pytest.mark.parametrize('small', [(3, 4), (6, 8), (5, 7), (24, 32)])
def test_resized_as_opencv_does_between_centres(tmp_path, small):
  x = RNG.normal(size=(*small, C)).astype(np.float32)
  want = cv2.resize(x, (W, H), interpolation=cv2.INTER_LINEAR)
  for values in (x, np.moveaxis(x, -1, 0), x[None]):
    found, own = read(pair(tmp_path, values), C, resize='bilinear')
    assert own
    np.testing.assert_allclose(found['logits'], want, atol=2e-6)
    with pytest.raises(UserError, match=r'its label is 12 x 16\n  give --resize bilinear'):
      read(pair(tmp_path, values), C)
  samples = {'samples': np.stack([x, x[::-1]])}
  found, _ = probabilities(tmp_path, samples, resize='bilinear')
  flipped = cv2.resize(x[::-1], (W, H), interpolation=cv2.INTER_LINEAR)
  np.testing.assert_allclose(found, (softmax(want, -1) + softmax(flipped, -1)) / 2, atol=1e-6)


def test_sizes_that_are_no_other_scale_are_not_stretched(tmp_path):
  for shape in ((W, H, C), (4, W, C), (H - 1, W, C)):
    with pytest.raises(UserError, match=r'x.npy: shape .*; its label is 12 x 16\n  expected'):
      read(pair(tmp_path, np.zeros(shape, np.float32)), C, resize='bilinear')
  x = LOGITS[::2, ::2].copy()
  x[0, 0, 0] = -np.inf
  with pytest.raises(UserError, match='-inf cannot be resized'):
    read(pair(tmp_path, x), C, resize='bilinear')


def test_maps_of_classes_are_scored_for_accuracy_alone(tmp_path, capsys):
  (tmp_path / 'p').mkdir()
  (tmp_path / 'l').mkdir()
  hits = union = 0
  for k in range(2):
    said = RNG.integers(0, C, (H, W)).astype(np.uint8)
    np.save(tmp_path / 'p' / f'{k}.npy', said.astype(np.int64))
    Image.fromarray(said).save(tmp_path / 'p' / f'{k}.png')
    Image.fromarray(LABEL).save(tmp_path / 'l' / f'{k}.TIF')
    seen = LABEL != 255
    of = lambda c, a, s=seen: (a == c) & s
    hits = hits + np.array([(of(c, said) & of(c, LABEL)).sum() for c in range(C)])
    union = union + np.array([(of(c, said) | of(c, LABEL)).sum() for c in range(C)])
  arguments = ['--config', 'configs/reliability.py', '--labels', str(tmp_path / 'l')]
  arguments += ['--predictions', f'm={tmp_path / "p"}', '--out', str(tmp_path / 'o')]
  arguments += ["--config.classes=('a','b','c')", '--config.worst=1', '--config.resamples=0']
  cells = []
  for _ in range(2):  # arrays, then pictures
    assert evaluation.main(arguments) == 0
    told = capsys.readouterr().err
    assert 'read as classes without a confidence' in told
    study = json.loads((tmp_path / 'o' / 'study.json').read_text())
    assert any('are not available' in note for note in study['notes'])
    cells.append({k: v['value'] for k, v in study['cells'][0]['values'].items()})
    if arrays_there := [*(tmp_path / 'p').glob('*.npy')]:
      assert '0.png, 1.png is no prediction: not scored' in told
      for path in arrays_there:
        path.unlink()
  want = {'miou': (hits / union).mean(), 'pixel_accuracy': hits.sum() / (2 * seen.sum())}
  assert cells == [pytest.approx(want)] * 2
  np.save(tmp_path / 'p' / '2.npy', LOGITS)
  Image.fromarray(LABEL).save(tmp_path / 'l' / '2.png')
  np.save(tmp_path / 'p' / '1.npy', LABEL.clip(0, 2))
  assert evaluation.main(arguments) == 2
  assert 'holds logits, files before it classes' in capsys.readouterr().err


def npy(header: bytes, numbers: bytes = b'') -> bytes:
  return b'\x93NUMPY\x01\0' + len(header).to_bytes(2, 'little') + header + numbers


def header(shape: str, kind: str = "'<f4'") -> bytes:
  return f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()


@pytest.mark.parametrize(
  ('raw', 'message'),
  [
    (npy(header('(1000000, 1000000, 3)')), 'truncated: 0 bytes of numbers'),
    (npy(header('(-8, 9)'), b'\0' * 288), 'a shape of'),
    (npy(header('(2,)'), b'\0' * 12), 'damaged: 12 bytes'),
    (npy(header('(1,)', "'|O'"), b'cos\nsystem\n(S"true"\ntR.'), 'numbers of type object'),
    (npy(header('(2,)', "[('a', '<f4')]"), b'\0' * 8), 'which are not read'),
    (npy(header('(2,)', "'<U0'")), 'which are not read'),
    (npy(header('(2,)', "'<M8[s]'"), b'\0' * 16), 'which are not read'),
    (npy(b'(' * 5000 + b')' * 5000), ''),
    (npy(b'[1]\n'), ''),
    (b'', ''),
    (b'\x80\x04N.', ''),
  ],
)
def test_hostile_headers_are_refused_before_anything_is_allocated(tmp_path, raw, message):
  path = tmp_path / 'x.npy'
  path.write_bytes(raw)
  for read in (arrays.read, arrays.mapped):
    with pytest.raises(UserError, match=f'x.npy cannot be read as a .npy file .*{message}'):
      read(path)


def test_arrays_of_every_order_and_type_come_back(tmp_path):
  values = [LOGITS, np.asfortranarray(LOGITS), LOGITS.astype('>f2'), np.float64(3)]
  for x in (*values, np.array('text'), LOGITS > 1):
    np.save(tmp_path / 'x.npy', x)
    for found in (arrays.read(tmp_path / 'x.npy')[''], arrays.mapped(tmp_path / 'x.npy')):
      np.testing.assert_array_equal(found, x)
      assert found.dtype == x.dtype
  np.savez_compressed(tmp_path / 'x.npz', a=LOGITS, b=LABEL, c=np.zeros((0, 3)))
  found = arrays.read(tmp_path / 'x.npz')
  assert ([*found], found['c'].shape) == (['a', 'b', 'c'], (0, 3))
  (tmp_path / 'x.npz').rename(tmp_path / 'x.NPZ')
  np.testing.assert_array_equal(arrays.read(tmp_path / 'x.NPZ')['b'], LABEL)


@pytest.mark.filterwarnings('ignore:Duplicate')
def test_archives_that_lie_are_refused(tmp_path, monkeypatch):
  path = tmp_path / 'x.npz'
  np.save(tmp_path / 'x.npy', LOGITS)
  raw = (tmp_path / 'x.npy').read_bytes()
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('a.npy', raw)
    file.writestr('a.npy', raw)
  with pytest.raises(UserError, match="x.npz .*two of its arrays are called 'a'"):
    arrays.read(path)
  np.savez_compressed(path, a=np.zeros(10**6))
  monkeypatch.setattr(arrays, 'MOST_INFLATED', 10**6)
  with pytest.raises(UserError, match=r'x.npz .*bytes that unpack to 8,000,'):
    arrays.read(path)
