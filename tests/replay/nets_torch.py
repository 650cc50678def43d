"""SegFormer, DeepLabV3+ and resizing against torch; see tests/golden/nets/README.md."""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import optax

from car_jax import registry
from car_jax.importers.openmmlab import model
from car_jax.importers.transformers import mit
from car_jax.nn.resize import resize_bilinear
from tests.golden.fill import fill
from tests.replay import Replay, replays
from tests.whole import whole

FOLDER = pathlib.Path('tests/golden/nets')
MIX = dict(name='segformer', widths=(8, 16, 24, 32), depths=(2, 1, 1, 2), heads=(1, 2, 3, 4))
MIX |= dict(drop_path=0.0, dropout=0.0)
PLUS = dict(name='deeplabv3plus', stem_channels=8, dropout=0.0)
SPECS = {
  'segformer_mmseg': MIX | dict(features=16),
  'segformer_huggingface': MIX | dict(features=12, normed_projections=False, norm_epsilon=1e-5),
  'deeplabv3plus_basic': PLUS | dict(depth=18, blocks=(2, 1, 2, 2), features=10, low_features=6),
  'deeplabv3plus_bottleneck': PLUS
  | dict(depth=50, blocks=(1, 1, 2, 2), features=8, low_features=5, align_corners=False),
}


def manifest_of(name: str, folder: pathlib.Path = FOLDER) -> dict[str, list[int]]:
  return json.loads((folder / f'{name}.manifest.json').read_text())


def weights_of(name: str, folder: pathlib.Path = FOLDER) -> dict[str, np.ndarray]:
  """Torch's names -> the recorded weights."""
  found = {n: np.float32(fill(n, tuple(s))) for n, s in manifest_of(name, folder).items()}
  return {n: w * np.float32(0.2) if n.endswith('bn3.weight') else w for n, w in found.items()}


def imported(name: str, weights: Any) -> Any:
  importer = mit if name.endswith('huggingface') else model
  return importer.to_variables(registry.net(SPECS[name], num_classes=1), weights)


def loaded(r: Replay) -> tuple[Any, Any]:
  """-> net, variables"""
  weights = weights_of(r.stem, r.folder)
  bias = 'classifier.bias' if r.stem.endswith('huggingface') else 'conv_seg.bias'
  net = registry.net(SPECS[r.stem], num_classes=len(weights[f'decode_head.{bias}']))
  return net, imported(r.stem, weights)


@replays('nets', *SPECS)
def evaluation(r: Replay) -> None:
  net, variables = loaded(r)
  image = (r['image'] / 255 * 2 - 1).astype(np.float32)
  run = jax.jit(lambda v, x: net.apply(v, x, train=False, mutable=['intermediates']))
  logits, kept = run(variables, image)
  r.check('logits', np.moveaxis(logits, -1, 1)[:, :, ::2, ::2], 1e-4, relative=True)
  (features,) = kept['intermediates']['backbone_features']
  r.check('backbone', np.moveaxis(features, -1, 1), 1e-4, relative=True)


def norms(r: Replay, tree: Any) -> dict[str, float]:
  """L2 norms of our arrays under torch's names, found by importing arrays of their numbers."""
  manifest = manifest_of(r.stem, r.folder)
  numbers = imported(r.stem, {n: np.full(s, i) for i, (n, s) in enumerate(manifest.items())})
  squares = np.zeros(len(manifest))
  pairs = zip(jax.tree.leaves({k: numbers[k] for k in tree}), jax.tree.leaves(tree), strict=True)
  for number, leaf in pairs:  # an attention's joint projection is three of ours
    squares[int(np.ravel(number)[0])] += np.sum(np.square(np.asarray(leaf, np.float64)))
  return dict(zip(manifest, np.sqrt(squares), strict=True))


@replays('nets', 'segformer_mmseg', 'deeplabv3plus_basic')
def backward(r: Replay) -> None:
  """In float64: in float32 a ReLU's input near its kink falls on either side of it."""
  net, variables = loaded(r)
  image, label = r['image'] / 255 * 2 - 1, r['label'].astype(np.int32)

  def loss_of(params):
    inputs = {'params': params, 'batch_stats': variables['batch_stats']}
    logits, new = net.apply(inputs, image, train=True, mutable=['batch_stats'])
    return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(), new

  with jax.enable_x64(True):
    wide = lambda a: a if a.dtype == np.int32 else np.asarray(a, np.float64)
    variables = jax.tree.map(wide, variables)
    run = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    (loss, new), grads = jax.device_get(run(variables['params']))
  r.check('loss', loss, 1e-6, relative=True)
  ours = norms(r, {'params': grads})
  r.check('grad_l2', [ours[n] for n in r['grad_names']], 1e-5, relative=True)
  ours = norms(r, new)
  r.check('running_l2', [ours[n] for n in r['running_names']], 1e-6, relative=True)


@replays('nets', 'resize')
def resizing(r: Replay) -> None:
  for key in [k for k in r.arrays if k.startswith('x')]:
    x, size = r[key], tuple(map(int, r[f'size{key[1:]}']))
    for align in (0, 1):
      y = whole(resize_bilinear)(x, size, align_corners=bool(align))
      r.check(f'y{key[1:]}_align{align}', y, 2e-5)  # torch rounds places to float32
