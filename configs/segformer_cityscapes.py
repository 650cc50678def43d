"""SegFormer on Cityscapes at full size (arXiv 2105.15203), scored as RELIS does (arXiv 2303.11298).

  car-jax prepare cityscapes --source FOLDER --scale 1
  car-jax import mmseg FILE --config configs/segformer_cityscapes.py:b0 --out runs/b0
  car-jax eval --checkpoint runs/b0

Published mIoU on the 500 validation images, here the test split: b0 76.54, b1 78.56, b2 81.08, b3
81.94, b4 81.89, b5 82.25. The head is as wide as the paper's, 768 from b2 on; an imported file says
its own (mmsegmentation's is always 256).

The same file trains one by the published recipe: AdamW at 6e-5, decay 0.01
but not of norms, the head at ten times the rate, 1,500 steps of warm-up, then a rate that falls
linearly over 160,000 steps of 16 crops of 1024x1024. It departs from it in the start, which is
random where there is no ImageNet file of the encoder, and in the augmentation: no rescaling and no
colour jitter. One epoch is 185 steps.
"""

from ml_collections import ConfigDict

from car_jax import variants

VARIANTS = ('b0', 'b1', 'b2', 'b3', 'b4', 'b5')
RECIPE = dict(name='adamw', lr=6e-5, b1=0.9, b2=0.999, weight_decay=0.01)
RECIPE |= dict(
  schedule='poly', power=1.0, decay_steps=160_000, warmup_steps=1_500, warmup_start=1e-6
)
RECIPE |= dict(rates=((r'^(?!backbone/)', 10.0),), decays=((r'norm\d?/', 0.0),))


def get_config(variant='b0'):
  variants.check('segformer_cityscapes', variant, VARIANTS)
  c = ConfigDict()
  c.method = dict(
    name='supervised',
    model=dict(name='segformer', variant=variant, normed_projections=True, norm_epsilon=1e-6),
    optim=RECIPE,
    crop=1024,
    stride=768,
  )
  c.data = dict(name='cityscapes/scale1', size=1024, batch=16, eval_batch=1)
  c.data.crop, c.data.mirror, c.data.threads = 'random', True, 8
  c.data.eval_size, c.data.fit = 0, (2048, 1024)
  c.steps, c.log_every, c.eval_every, c.save_every = 160_000, 100, 16_000, 1_600
  spec = dict(samples=1, absent='skip', metrics=('miou',))
  c.evals = dict(val=spec | dict(split='validation'))
  c.best = 'val/miou:max'
  c.report = spec | dict(split='test', metrics=('miou', 'ece'))
  return c
