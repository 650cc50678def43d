"""Samples of style transfer, boxes of objects, and scores of detection, as GenVal has them."""

import numpy as np

from car_jax.generate import boxes, style
from tests.metrics import published
from tests.replay import Replay, replays


@replays('genval', 'style_item')
def style_item(r: Replay) -> None:
  height, width = map(int, r['size'])
  offset = int(r['offset'])
  enlarged = lambda x: np.repeat(np.repeat(x, height // len(x), 0), height // len(x), 1)
  row, column = np.mgrid[:height, :width]
  factor = height // len(r['image_small'])
  image = enlarged(r['image_small']) + (row % factor + column % factor)[..., None]
  image = (image % 256).astype(np.uint8)
  r.check('randint_range', [[0, style.offsets(height, width)]], 0)
  side = 4 * len(r['hint'])
  labels = style.square(enlarged(r['labels_small']), offset, side)
  hint = style.label_hint(labels)
  assert str(r['hint_dtype']) == str(hint.dtype)
  r.check('hint', hint[::4, ::4], 1e-6)
  target = style.model_range(style.square(image, offset, side))
  r.check('target', target[::8, ::8], 1e-6)
  r.check('saved_gt', style.labels_of_hint(hint)[::4, ::4], 0)
  r.check('saved_original', style.pixels(target, truncated=True)[::8, ::8], 0)


@replays('genval', 'label_roundtrip')
def label_roundtrip(r: Replay) -> None:
  hint = style.label_hint(r['ids'])
  r.check('hint', hint[..., 0], 0)
  r.check('saved_id', style.labels_of_hint(hint), 0)
  r.check('true_saved_id', r['ids'], 0)
  images = style.model_range(r['pix'])
  r.check('saved_pix', style.pixels(images, truncated=True), 0)
  assert np.array_equal(style.pixels(images), r['pix'])


@replays('genval', 'ood_box')
def ood_box(r: Replay) -> None:
  for i in sorted(int(k[3:]) for k in r.arrays if k.startswith('box')):
    size, crop, row, column, *margins = map(int, r[f'box{i}'])
    box = boxes.Box(row, column, size, boxes.crop_side(size))
    assert [crop, *margins] == [box.crop, box.margin, box.margin]
    height, width = (int(end) + crop for end in r[f'ranges{i}'][:, 1])
    rows, columns = boxes.crop_ranges(height, width, size)
    r.check(f'ranges{i}', [rows, columns], 0)
    assert rows[0] <= row - box.margin <= rows[1]
    assert columns[0] <= column - box.margin <= columns[1]
    mask = boxes.blurred_mask(box, 4 * len(r[f'blurred{i}']))
    r.check(f'blurred{i}', mask[::4, ::4], 0)
    inside = mask >= boxes.INSIDE
    r.check(f'binary_rows{i}', [inside.sum(1), inside.sum(0)], 0)
    r.check(f'mask_latents{i}', np.packbits(boxes.latent_mask(mask), axis=1), 0)
    step = len(mask) // len(r[f'resized{i}'])
    scene = np.zeros((height, width, 3), np.uint8)
    scene[..., 0], scene[..., 1] = np.arange(width) % 251, np.arange(height)[:, None] % 253
    found = boxes.resized(box.crop_of(scene), *mask.shape)[::step, ::step]
    r.check(f'resized{i}', found, 2)


@replays('genval', 'ood_metrics')
def ood_metrics(r: Replay) -> None:
  found = published.object_metrics(np.moveaxis(r['logits'], 0, -1), r['mask'] == 1)
  for key, value in found.items():
    name, _, kind = key.partition('_')
    r.check(key if key in r else f'{name}/{kind}', value, 1e-5)
