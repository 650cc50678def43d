"""The segmenters that RELIS and GenVal evaluate against recorded outputs of the published code."""

import json
from typing import Any

import jax
import numpy as np

from car_jax.importers.openmmlab import model
from car_jax.nn import net as nets
from car_jax.nn import windows
from tests.golden.fill import fill
from tests.replay import Replay, replays

STEMS = ('ann', 'apcnet', 'bisenetv1', 'bisenetv2', 'ccnet', 'deeplabv3plus', 'gcnet', 'icnet')
STEMS += ('mobilenetv3_lraspp', 'pspnet', 'segformer', 'segmenter', 'semfpn', 'setr_mla')
STEMS += ('setr_naive', 'setr_pup', 'upernet_bit', 'upernet_convnext', 'upernet_resnet')
STEMS += ('upernet_swin',)
# Saturated attention and weight standardisation amplify rounding.
ROUGH = ('ann', 'ccnet', 'upernet_bit')


def weights_of(r: Replay) -> dict[str, np.ndarray]:
  seed, manifest = int(r['seed']), json.loads(str(r['manifest']))
  named = lambda name: name if seed == 0 else f'{seed}/{name}'
  return {n: np.asarray(fill(named(n), tuple(s)), np.float32) for n, s in manifest.items()}


def kept(r: Replay) -> None:
  """Integer buffers follow from the net's options, and are not read."""
  for key in [k for k in r.arrays if k.startswith('kept')]:
    r[key]


def flat(intermediates: Any, name: str) -> list[np.ndarray]:
  """Maps that the net kept under a name, [D, h, w] each."""
  return [np.moveaxis(x[0], -1, 0) for x in jax.tree.leaves(intermediates[name])]


@replays('zoo', *STEMS)
def forward(r: Replay) -> None:
  net = model.net(json.loads(str(r['config'])))
  image = np.float32(r['image'] / 127.5 - 1)[None]
  variables = model.to_variables(net, weights_of(r))
  align = bool(r['align_corners'])
  assert net.align_corners == align
  rough, errors = 1e-3 if r.stem in ROUGH else 2e-5, json.loads(str(r['float32_error']))
  tolerance = {k: max(10 * errors.get(k, 0), rough) for k in ('logits', 'rescaled', 'slide')}

  def every(key):
    step = int(r[key]) if key in r else 1
    return np.s_[:, ::step, ::step]

  run = lambda v, x: net.apply(v, x, train=False, mutable=['intermediates'])
  logits, state = jax.jit(run)(variables, image)
  for i, x in enumerate(flat(state['intermediates'], 'feature_maps')):
    if f'feature{i}' not in r:
      continue
    short = r.arrays[f'feature{i}'].ndim == 1
    value = np.array([np.sum(x, dtype=float), np.abs(x).sum(dtype=float)]) if short else x
    scale = np.abs(x).sum(dtype=float) if short else None
    r.check(f'feature{i}', value, tolerance['logits'], relative=not short, scale=scale)
  (head,) = flat(state['intermediates'], 'coarse_logits')
  r.check('head', head[every('head_stride')], tolerance['logits'], relative=True)
  seen = np.moveaxis(np.asarray(logits[0]), -1, 0)
  r.check('logits', seen[every('logits_stride')], tolerance['logits'], relative=True)

  apply = lambda v, x: nets.padded(net, lambda y: net.apply(v, y, train=False), x)
  size = tuple(map(int, r['ori_shape']))
  crop, stride = (tuple(map(int, r[k])) for k in ('crop_size', 'stride'))

  def slid(v, x):
    return windows.sliding(lambda y: apply(v, y), x, crop, stride)

  resized = jax.jit(lambda x: windows.predicted(lambda y: y, x, size, align_corners=align))
  for key, values in (('rescaled', logits), ('slide', jax.jit(slid)(variables, image))):
    value = np.moveaxis(np.asarray(resized(values)[0]), -1, 0)
    r.check(key, value[every('rescaled_stride')], tolerance[key], relative=True)
  kept(r)
