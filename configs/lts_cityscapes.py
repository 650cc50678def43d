"""Local temperature scaling of a SegFormer on Cityscapes, as RELIS does (arXiv 2303.11298).

  car-jax prepare cityscapes --source FOLDER --scale 1 --splits reliability
  car-jax import mmseg FILE --config configs/segformer_cityscapes.py:b0 --out runs/b0
  car-jax train --config configs/lts_cityscapes.py --workdir runs/lts_b0
  car-jax calibrate runs/lts_b0 --out lts_b0.npz

Learnt on the images of munster and lindau, scored on frankfurt. A step sees four images, as
published, but a 1024x1024 window of each, the size the segmenter works at. 10 epochs are 580 steps.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.method = dict(
    name='lts',
    segmenter=dict(name='segformer', variant='b0', normed_projections=True, norm_epsilon=1e-6),
    temperature=dict(name='local_temperature', inputs='logits+image'),
    optim=dict(lr=1e-4),
    crop=1024,
    stride=768,
  )
  c.init = dict(segmenter='runs/b0:net')
  c.data = dict(name='cityscapes/scale1-splits_reliability', size=1024, batch=4)
  c.data.train, c.data.eval_batch, c.data.threads = 'calibration', 1, 8
  c.data.crop, c.data.eval_size, c.data.fit = 'random', 0, (2048, 1024)
  c.steps, c.log_every, c.eval_every, c.save_every, c.seed = 580, 10, 0, 58, 42
  spec = dict(samples=1, absent='skip', split='test')
  c.report = spec | dict(metrics=('ece[own,top]', 'nll[own]', 'miou[own]'))
  return c
