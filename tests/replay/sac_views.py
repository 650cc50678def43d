"""DA-SAC's noise, source windows, target views and affine maps, and what undoes them."""

import numpy as np

from car_jax.data import compact, photometric, views
from car_jax.data.photometric import BRIGHTNESS, CONTRAST, HUE, SATURATION
from tests.replay import Replay, replays

QUIET = photometric.Noise(radius=0.0, jittered=False, order=(), factors=np.zeros(4), grey=False)


def pair(r: Replay, name: str) -> tuple[int, int]:
  height, width = r[name]
  return int(height), int(width)


@replays('sac', 'photometric')
def noise(r: Replay) -> None:
  image, kinds = r['image'], (BRIGHTNESS, CONTRAST, SATURATION, HUE)
  for kind, name in zip(kinds, ('brightness', 'contrast', 'saturation', 'hue'), strict=True):
    factors = r[f'{name}_factors']
    alone = QUIET._replace(jittered=True, order=(kind,))
    r.check(name, [photometric.noisy(image, alone._replace(factors=[f] * 4)) for f in factors], 0)
  order, factors = r['jitter_order'], r['jitter_factors_bcsh']
  every = QUIET._replace(jittered=True, order=order, factors=factors)
  r.check('jitter', photometric.noisy(image, every), 0)
  r.check('grey', photometric.noisy(image, QUIET._replace(grey=True)), 0)
  radii = r['blur_radii']
  r.check('blur', [photometric.noisy(image, QUIET._replace(radius=x)) for x in radii], 0)


def normalised(images: np.ndarray) -> np.ndarray:
  """What a net makes of images; the published code feeds its nets with this."""
  return ((images.astype(np.float64) + 1) / 2 - compact.MEAN) / compact.STD


def on_device(images: np.ndarray, labels: np.ndarray, *, renormalise: bool = False) -> np.ndarray:
  """What a device makes of them."""
  frame = compact.Frame.of(labels != compact.PADDED, 0, renormalise)
  return compact.expanded(dict(image=images, frame=frame))['image']


@replays('sac', 'source_aug')
def source(r: Replay) -> None:
  mean, std = compact.renormalised()
  r.check('renorm_mean', mean, 1e-8)
  r.check('renorm_std', std, 1e-8)
  for case in (k.removesuffix('_image') for k in list(r.keys()) if k.endswith('_image')):
    image, label, size = r[f'{case}_image'], r[f'{case}_label'], pair(r, f'{case}_size')
    scaled = [int(r[f'{case}_scale'] * side) for side in label.shape]
    r.check(f'{case}_scaled_hw', scaled, 0)
    drawn = views.Window(np.array(scaled), r[f'{case}_ij'], bool(r[f'{case}_flip']))
    pixels, labels = views.windowed(image, label, drawn, size=size)
    normed = normalised(on_device(pixels, labels, renormalise=True))
    r.check(f'{case}_out', np.moveaxis(normed, -1, 0), 1e-5)
    r.check(f'{case}_out_label', np.where(labels == compact.PADDED, 255, labels), 0)


@replays('sac', 'target_aug')
def target(r: Replay) -> None:
  image, label, size = r['image'], r['label'], pair(r, 'size')
  for case in ('zoom_in', 'zoom_out'):
    scale, factors = r[f'{case}_base_scale'], r[f'{case}_zooms']
    scaled = np.array([int(scale * side) for side in size])
    parts = np.array([[int(s * side) for side in size] for s in factors])
    r.check(f'{case}_base_hw', scaled, 0)
    r.check(f'{case}_zoom_hw', parts, 0)
    base = views.Window(scaled, r[f'{case}_crop_ij'], bool(r[f'{case}_global_flip']))
    drawn = views.Zooms(r[f'{case}_flips'], factors, parts, r[f'{case}_zoom_ij'])
    images, labels = views.viewed(image, label, base, drawn, size=size)
    r.check(f'{case}_images_u8', images, 0)
    r.check(f'{case}_labels', labels, 0)
    normed = normalised(on_device(images, labels))
    for where, k in (('0', 0), ('last', -1)):
      r.check(f'{case}_normed_{where}_s2', np.moveaxis(normed[k, ::2, ::2], -1, 0), 1e-5)
    r.check(f'{case}_normed_sum', normed.sum((1, 2), dtype=np.float64), 1e-6, relative=True)
    of = views.parameters(drawn, size)
    matrix = views.affine(of, size)
    r.check(f'{case}_params', of, 1e-9)
    r.check(f'{case}_affine', matrix, 1e-5)
    r.check(f'{case}_affine_inv', views.inverse(matrix, of, size), 1e-5)


@replays('sac', 'affine')
def affine(r: Replay) -> None:
  size = pair(r, 'crop_size')
  for case in ('zoom_in', 'zoom_out', 'rotated'):
    of = r[f'{case}_params']
    matrix = views.affine(of, size)
    undone = views.inverse(matrix, of, size)
    r.check(f'{case}_affine', matrix, 1e-5)
    r.check(f'{case}_affine_inv', undone, 1e-5)
    (grid,) = (k for k in sorted(r.keys()) if k.startswith(f'{case}_grid'))
    h, w = r.arrays[grid].shape[1:3]
    u, v = (2 * np.arange(w) + 1) / w - 1, (2 * np.arange(h) + 1) / h - 1
    at = np.stack([*np.broadcast_arrays(u, v[:, None]), np.ones((h, w))], -1)
    r.check(grid, np.einsum('bij,hwj->bhwi', undone, at), 1e-5)
