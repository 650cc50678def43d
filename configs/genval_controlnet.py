"""ControlNet of Stable Diffusion 1.5 on Cityscapes' label ids, as GenVal trains it
(arXiv 2312.09231): 3,600 updates of 128 crops of 512x512, each of 16 batches of 8.

  car-jax train --config configs/genval_controlnet.py --workdir runs/genval_controlnet \\
    --config.method.weights=DIR --config.data.tokenizer=DIR --config.data.root=CITYSCAPES
  car-jax generate export runs/genval_controlnet --out weights/controlnet

DIR is a folder of Stable Diffusion 1.5 in diffusers' layout, CITYSCAPES one with leftImg8bit/ and
gtFine/, whose captions are made from the masks. With captions of yours as JSON lines of image,
conditioning_image and text set --config.data.captions=FILE too; paths in it are relative to root.

Published, and so `published`: float32 everywhere, no caption is ever left out. `efficient`, the
default, computes in bfloat16, keeps what is frozen in it, and leaves out a tenth of the captions,
without which guidance compares with a text that training has never seen. Variant `ade20k` goes on
from a public ControlNet of segmentations (--config.method.start=DIR), whose hints are colours.
"""

from ml_collections import ConfigDict

from car_jax import variants

EFFICIENT = dict(dtype='bfloat16', frozen_dtype='bfloat16')
VARIANTS = dict(
  efficient=EFFICIENT,
  published=dict(dtype='float32', frozen_dtype='float32'),
  ade20k=EFFICIENT,
)
BATCHES = 16  # whose mean gradient makes an update


def get_config(variant='efficient'):
  variants.check('genval_controlnet', variant, VARIANTS)
  c = ConfigDict()
  optim = dict(name='adamw', lr=1e-5, weight_decay=0.01, accumulate=BATCHES)
  c.method = dict(name='controlnet', weights='', start='', remat=True, optim=optim)
  c.method.update(VARIANTS[variant])
  c.data = dict(name='captioned', batch=8, size=512, crop='random_square', root='', tokenizer='')
  c.data.hint = 'ade20k' if variant == 'ade20k' else 'label_id'
  c.data.caption_dropout = 0.0 if variant == 'published' else 0.1
  c.data.threads = 16
  c.steps = 3_600 * BATCHES  # 150 epochs of 24 updates
  c.log_every, c.seed = 200, 0
  c.save_every, c.keep = 240 * BATCHES, 15  # every 10 epochs, all of them
  return c
