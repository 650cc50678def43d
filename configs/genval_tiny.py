"""A tiny diffusion model of drawn street scenes, 32x64, and its ControlNet: nothing to download.

  car-jax train --config configs/genval_tiny.py:diffusion --workdir runs/genval_tiny/diffusion
  car-jax generate export runs/genval_tiny/diffusion --out runs/genval_tiny/weights
  car-jax train --config configs/genval_tiny.py:controlnet --workdir runs/genval_tiny/controlnet
  car-jax generate export runs/genval_tiny/controlnet --out runs/genval_tiny/control

Or all of it, with scenes generated from masks and scored:
python -m car_jax.studies.generated_masks --out runs/genval_tiny
"""

from ml_collections import ConfigDict

from car_jax import variants

OPTIM = dict(name='adamw', schedule='cosine', warmup_steps=50, clip=1.0, ema=0.99)
METHODS = dict(
  diffusion=dict(
    name='diffusion',
    patch=2,
    widths=(64, 64, 64),
    attention=(False, False, True),
    optim=OPTIM | dict(lr=1e-3),
  ),
  controlnet=dict(
    name='controlnet',
    weights='runs/genval_tiny/weights',
    hint_widths=(32, 64),
    frozen_dtype='float32',
    remat=False,
    optim=OPTIM | dict(lr=2e-3),
  ),
)
STEPS = dict(diffusion=3_200, controlnet=2_400)
VARIANTS = (*METHODS,)


def get_config(variant='diffusion'):
  variants.check('genval_tiny', variant, VARIANTS)
  c = ConfigDict()
  c.method = METHODS[variant]
  c.steps, c.log_every, c.save_every, c.seed = STEPS[variant], 50, 500, 0
  c.method['optim']['decay_steps'] = c.steps
  c.data = dict(name='captioned', batch=4, size=32, crop='full', height=32, count=400)
  c.data.hint, c.data.caption_dropout, c.data.threads = 'ade20k', 0.1, 1
  c.data.tokens = 28
  if variant == 'controlnet':
    c.data.tokenizer = 'runs/genval_tiny/weights'
  return c
