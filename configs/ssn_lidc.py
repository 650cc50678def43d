"""Stochastic segmentation networks on LIDC (Monteiro et al., NeurIPS 2020), 128x128, split v1.

  car-jax prepare lidc_v1 --source data_lidc.pickle
  car-jax train --config configs/ssn_lidc.py --workdir runs/ssn_lidc

Variants: `:unet`, on MoSE's U-Net and data, so that heads are compared, not trunks, with the rate,
draws and 500,000 steps of its LIDC experiments; `:gtr`, as the first stage of ATFM trains it: the
Probabilistic U-Net's U-Net, one logit, 200 epochs of 9,600 slices. For a GPU. PUBLISHED has what
tables print of trainings by others.
"""

from car_jax import variants
from car_jax.configs import mose_lidc
from car_jax.configs._published import CCDM, papers, publish

PUBLISHED = papers(
  f'SSN, {CCDM}: LIDC, split v1',
  ged16=0.259,
  ged32=0.243,
  ged100=0.225,
  hm_iou16=0.558,
  hm_iou32=0.555,
)
METHODS = dict(
  unet=dict(
    name='ssn',
    model=dict(name='unet', widths=(32, 64, 128, 192, 192, 192, 192)),
    optim=dict(lr=1e-3),
    rank=10,
    samples=20,
  ),
  gtr=dict(
    name='ssn',
    model=dict(
      name='unet', widths=(32, 64, 128, 192), norm=False, align_corners=True, torch_start=True
    ),
    optim=dict(name='adamw', lr=1e-4, weight_decay=1e-4),
    rank=10,
    samples=20,
    one_logit=True,
    pixel_mean=(0.0,),
    pixel_std=(1.0,),
  ),
)
BATCH, STEPS = dict(unet=12, gtr=6), dict(unet=500_000, gtr=320_000)
VARIANTS = (*METHODS,)


def get_config(variant='unet'):
  variants.check('ssn_lidc', variant, VARIANTS)
  c = mose_lidc.get_config()
  c.method, c.data.batch, c.steps = METHODS[variant], BATCH[variant], STEPS[variant]
  publish(c, **PUBLISHED)
  return c
