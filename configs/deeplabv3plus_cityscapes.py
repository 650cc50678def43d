"""DeepLabV3+ on Cityscapes at full size (arXiv 1802.02611), scored as RELIS does (2303.11298).

  python -m datasets.prepare cityscapes --source FOLDER --scale 1
  python -m car_jax.importers mmseg FILE --config configs/deeplabv3plus_cityscapes.py:r50 --out run
  python eval.py --checkpoint run

Published mIoU on the 500 validation images, here the test split: r18 76.26, r50 79.83, r101 80.98.
`train.py --config` with the same file trains one from scratch, by Adam and without the published
auxiliary head.
"""

from car_jax.errors import UserError, nearest
from configs import segformer_cityscapes

MODELS = dict(
  r18=dict(depth=18, features=128, low_features=12),
  r50=dict(depth=50, features=512, low_features=48),
  r101=dict(depth=101, features=512, low_features=48),
)


def get_config(variant='r18'):
  if variant not in MODELS:
    raise UserError(
      f'configs/deeplabv3plus_cityscapes.py has no variant {variant!r}\n{nearest(variant, MODELS)}'
    )
  c = segformer_cityscapes.get_config()
  c.method.model = dict(name='deeplabv3plus', align_corners=True, **MODELS[variant])
  c.method.optim = dict(lr=1e-4, milestones=(60, 120, 180, 210))
  c.method.crop, c.method.stride = 769, 513
  c.data.size, c.data.fit, c.steps = 769, (2049, 1025), 80_000
  return c
