"""RELIS's preparation of images and its prediction by windows against recorded outputs."""

import json

import jax
import numpy as np
from scipy.special import softmax

from car_jax.data import transforms
from car_jax.nn.composed import normalised
from car_jax.nn.resize import resize_bilinear
from car_jax.nn.windows import sliding
from tests.golden.fill import fill
from tests.replay import Replay, replays
from tests.whole import whole

WEIGHTS = ('weight', 'bias')


def nhwc(x: np.ndarray) -> np.ndarray:
  return np.moveaxis(np.asarray(x, np.float32), 1, -1)


def toy_net(r: Replay, align_corners: bool):
  """A 3 x 3 convolution of stride 2, resized to its input."""
  manifest = json.loads((r.folder / 'slide_manifest.json').read_text())
  weight, bias = (np.float32(fill(f'toy.{k}', tuple(manifest[f'toy.{k}']))) for k in WEIGHTS)
  numbers = ('NHWC', 'HWIO', 'NHWC')

  def apply(x):
    kernel = weight.transpose(2, 3, 1, 0)
    pad = ((1, 1), (1, 1))
    y = jax.lax.conv_general_dilated(x, kernel, (2, 2), pad, dimension_numbers=numbers) + bias
    return resize_bilinear(y, x.shape[1:3], align_corners=align_corners)

  return apply


@replays('relis', 'inference')
def prediction(r: Replay) -> None:
  x, size = nhwc(r['x']), tuple(map(int, r['ori_shape']))
  crop, stride = (tuple(map(int, r[k])) for k in ('crop', 'stride'))
  for align in (False, True):
    net = toy_net(r, align)
    for mode, run in (('slide', lambda x, net=net: sliding(net, x, crop, stride)), ('whole', net)):
      logits = whole(resize_bilinear)(jax.jit(run)(x), size, align_corners=align)
      name = f'{mode}_align{int(align)}'
      r.check(f'{name}_logits', np.moveaxis(logits, -1, 1), 1e-5)
      r.check(f'{name}_probs', np.moveaxis(softmax(logits, -1), -1, 1), 1e-5)


@replays('relis', 'inference')
def preparation(r: Replay) -> None:
  inputs = r['resize_in_hw']
  for key, sides in (('2048', (2048, 1024)), ('2049', (2049, 1025))):
    sizes = [transforms.fitted_size(*map(int, hw), *sides) for hw in inputs]
    r.check(f'resize_out_hw_{key}', sizes, 0)
  (key,) = (k for k in r.arrays if k.startswith('pre_resized_bgr'))
  r.check(key, transforms.bilinear(r['pre_image_bgr'], *r[key].shape[:2]), 1)
  rgb = transforms.model_image(r[key][..., ::-1])
  r.check('pre_normalized_rgb', normalised(rgb), 1e-5)
