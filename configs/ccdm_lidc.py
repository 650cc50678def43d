"""CCDM on LIDC (Zbinden et al., ICCV 2023), 128x128, split v1.

  car-jax prepare lidc_v1 --source data_lidc.pickle
  car-jax train --config configs/ccdm_lidc.py --workdir runs/ccdm_lidc

250 steps of the chain, 2,000 epochs, evaluated with the average of the parameters. Data are MoSE's,
the images from -1 to 1. A sample takes 250 passes of the net: validation is of 100 images, as
there. With --config.method.sampling_steps=25 it takes a tenth of the time, and is no longer CCDM's.
For a GPU.
"""

from car_jax.configs import mose_lidc
from car_jax.configs._published import papers, publish

PUBLISHED = papers(
  'Zbinden et al., Stochastic segmentation with CCDM, ICCV 2023: LIDC, split v1',
  ged16=0.212,
  ged32=0.194,
  ged50=0.187,
  ged100=0.183,
  hm_iou16=0.623,
  hm_iou32=0.631,
)
STEPS = 1_200_000


def get_config():
  c = mose_lidc.get_config()
  c.method = dict(
    name='ccdm',
    model=dict(
      name='guided_unet',
      widths=(32, 32, 64, 96, 128),
      blocks=2,
      attention=(8, 16),
      head_width=32,
    ),
    optim=dict(
      lr=1e-4, schedule='poly', end=1e-6, decay_steps=STEPS - 1, ema=0.9999, ema_warmup=False
    ),
    schedule='cosine',
    diffusion_steps=250,
    pixel_mean=(0.5,),
    pixel_std=(0.5,),
  )
  c.data.batch, c.steps, c.eval_every, c.save_every = 16, STEPS, 2_500, 2_500
  c.evals.val.split = 'validation[:100]'
  publish(c, **PUBLISHED)
  return c
