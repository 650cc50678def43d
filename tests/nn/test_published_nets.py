"""SegFormer and DeepLabV3+ against recorded outputs of torch; see tests/golden/nets/README.md."""

import json
import pathlib

import jax
import numpy as np
import optax
import pytest

from car_jax import registry
from car_jax.importers import huggingface, mmseg
from tests.golden.fill import fill

FOLDER = pathlib.Path('tests/golden/nets')
MIX = dict(name='segformer', widths=(8, 16, 24, 32), depths=(2, 1, 1, 2), heads=(1, 2, 3, 4))
MIX |= dict(drop_path=0.0, dropout=0.0)
PLUS = dict(name='deeplabv3plus', stem_channels=8, dropout=0.0)
NETS = {  # file -> (classes, spec, importer)
  'segformer_mmseg': (5, MIX | dict(features=16), mmseg),
  'segformer_huggingface': (
    6,
    MIX | dict(features=12, normed_projections=False, norm_epsilon=1e-5),
    huggingface,
  ),
  'deeplabv3plus_basic': (
    5,
    PLUS | dict(depth=18, blocks=(2, 1, 2, 2), features=10, low_features=6),
    mmseg,
  ),
  'deeplabv3plus_bottleneck': (
    4,
    PLUS | dict(depth=50, blocks=(1, 1, 2, 2), features=8, low_features=5, align_corners=False),
    mmseg,
  ),
}


def manifest_of(name: str) -> dict[str, list[int]]:
  return json.loads((FOLDER / f'{name}.manifest.json').read_text())


def weights_of(name: str) -> dict[str, np.ndarray]:
  found = {n: np.float32(fill(n, tuple(s))) for n, s in manifest_of(name).items()}
  return {n: w * np.float32(0.2) if n.endswith('bn3.weight') else w for n, w in found.items()}


def built(name: str):
  """-> net, variables, recorded arrays, image in [-1, 1]."""
  classes, spec, importer = NETS[name]
  recorded = dict(np.load(FOLDER / f'{name}.npz'))
  variables = importer.to_variables(spec['name'], weights_of(name))
  image = (recorded['image'] / 255 * 2 - 1).astype(np.float32)
  return registry.net(spec, num_classes=classes), variables, recorded, image


def assert_near(ours, want, tolerance=1e-4):
  """To `tolerance` of the largest magnitude."""
  assert np.shape(ours) == np.shape(want)
  assert np.max(np.abs(ours - want)) <= tolerance * np.max(np.abs(want))


@pytest.mark.parametrize('name', NETS)
def test_logits_and_features_are_torchs(name):
  net, variables, recorded, image = built(name)
  run = jax.jit(lambda v, x: net.apply(v, x, train=False, mutable=['intermediates']))
  logits, kept = run(variables, image)
  assert logits.dtype == np.float32
  assert_near(np.moveaxis(logits, -1, 1)[:, :, ::2, ::2], recorded['logits'])
  (features,) = kept['intermediates']['backbone_features']
  assert_near(np.moveaxis(features, -1, 1), recorded['backbone'])


def by_name(name: str, tree) -> dict[str, float]:
  """L2 norms of our arrays under torch's names, found by importing arrays of their numbers."""
  _, spec, importer = NETS[name]
  names = list(manifest_of(name))
  numbered = {n: np.full(s, i) for i, (n, s) in enumerate(manifest_of(name).items())}
  numbers = importer.to_variables(spec['name'], numbered)
  squares = np.zeros(len(names))
  pairs = zip(jax.tree.leaves({k: numbers[k] for k in tree}), jax.tree.leaves(tree), strict=True)
  for number, leaf in pairs:  # an attention's joint projection is three of ours
    squares[int(np.ravel(number)[0])] += np.sum(np.square(np.asarray(leaf, np.float64)))
  return dict(zip(names, np.sqrt(squares), strict=True))


@pytest.mark.parametrize('name', ['segformer_mmseg', 'deeplabv3plus_basic'])
def test_one_backward_pass_is_torchs(name):
  """In float64: in float32 a ReLU's input near its kink falls on either side of it."""
  net, variables, recorded, _ = built(name)
  image, label = recorded['image'] / 255 * 2 - 1, recorded['label'].astype(np.int32)

  def loss_of(params):
    inputs = {'params': params, 'batch_stats': variables['batch_stats']}
    logits, new = net.apply(inputs, image, train=True, mutable=['batch_stats'])
    return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(), new

  run = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
  with jax.enable_x64(True):
    wide = lambda a: a if a.dtype == np.int32 else np.asarray(a, np.float64)
    variables = jax.tree.map(wide, variables)
    (loss, new), grads = jax.device_get(run(variables['params']))
  np.testing.assert_allclose(loss, recorded['loss'], rtol=1e-6)
  ours = by_name(name, {'params': grads})
  assert_near(np.array([ours[n] for n in recorded['grad_names']]), recorded['grad_l2'])
  ours = by_name(name, new)
  running = np.array([ours[n] for n in recorded['running_names']])
  np.testing.assert_allclose(running, recorded['running_l2'], rtol=1e-5)
