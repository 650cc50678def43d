"""SegFormer on Cityscapes at full size (arXiv 2105.15203), scored as RELIS does (arXiv 2303.11298).

  python -m datasets.prepare cityscapes --source FOLDER --scale 1
  python -m car_jax.importers mmseg FILE --config configs/segformer_cityscapes.py:b0 --out runs/b0
  python eval.py --checkpoint runs/b0

Published mIoU on the 500 validation images, here the test split: b0 76.54, b1 78.56, b2 81.08, b3
81.94, b4 81.89, b5 82.25. `train.py --config` with the same file trains one from scratch, by Adam
with a rate that halves; the published ones started from ImageNet. The head is as wide as
the paper's, 768 from b2 on; an imported file says its own (mmsegmentation's is always 256).
"""

from ml_collections import ConfigDict

from car_jax.errors import UserError, nearest

VARIANTS = ('b0', 'b1', 'b2', 'b3', 'b4', 'b5')


def get_config(variant='b0'):
  if variant not in VARIANTS:
    raise UserError(
      f'configs/segformer_cityscapes.py has no variant {variant!r}\n{nearest(variant, VARIANTS)}'
    )
  c = ConfigDict()
  c.method = dict(
    name='supervised',
    model=dict(name='segformer', variant=variant, normed_projections=True, norm_epsilon=1e-6),
    optim=dict(lr=6e-5, milestones=(120, 240, 360, 420)),
    crop=1024,
    stride=768,
  )
  c.data = dict(name='cityscapes/scale1', size=1024, batch=8, eval_batch=1)
  c.data.crop, c.data.flip, c.data.threads = 'random', True, 8
  c.data.eval_size, c.data.fit = 0, (2048, 1024)
  c.steps, c.log_every, c.eval_every, c.save_every = 160_000, 100, 16_000, 1_600
  spec = dict(samples=1, absent='skip', metrics=('miou',))
  c.evals = dict(val=spec | dict(split='validation'))
  c.best = 'val/miou:max'
  c.report = spec | dict(split='test', metrics=('miou', 'ece'))
  return c
