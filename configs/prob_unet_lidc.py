"""The Probabilistic U-Net on LIDC (Kohl et al., NeurIPS 2018), 128x128, split v1.

  car-jax prepare lidc_v1 --source data_lidc.pickle
  car-jax train --config configs/prob_unet_lidc.py --workdir runs/prob_unet_lidc

Variants: `:original`, seven levels, two classes, 240,000 steps, the rate lower from about steps
80,000 and 160,000 on; `:port`, the port to PyTorch by S. Knegt: four levels, one logit, sums over
the batch, un-squared norms, 10 epochs of 9,600 slices. Data are MoSE's; the images are not
standardised, as there. For a GPU.
"""

from car_jax import variants
from car_jax.configs import mose_lidc
from car_jax.configs._published import CCDM, papers, publish

PUBLISHED = papers(
  f'Probabilistic U-Net, {CCDM}: LIDC, split v1',
  ged16=0.310,
  ged32=0.303,
  ged100=0.252,
  hm_iou16=0.552,
  hm_iou32=0.548,
)
RAW = dict(pixel_mean=(0.0,), pixel_std=(1.0,))
UNDECAYED = (('bias', 0.0), ('combine3', 0.0))  # the last layer
METHODS = dict(
  original=RAW
  | dict(
    name='prob_unet',
    model=dict(name='prob_unet', widths=(32, 64, 128, 192, 192, 192, 192), latent=6),
    optim=dict(
      lr=1e-4,
      milestones=(267, 533),  # epochs of 300 steps
      factors=(0.5, 0.2),
      weight_decay=1e-5,
      decays=UNDECAYED,
    ),
    beta=10.0,
  ),
  port=RAW
  | dict(
    name='prob_unet',
    model=dict(
      name='prob_unet',
      widths=(32, 64, 128, 192),
      latent=2,
      one_logit=True,
      wide_latent_bias=True,
      orthogonal=True,
    ),
    optim=dict(lr=1e-4),
    beta=10.0,
    sum_over_batch=True,
    norm_weight=1e-5,
  ),
)
BATCH, STEPS = dict(original=32, port=5), dict(original=240_000, port=19_200)
VARIANTS = (*METHODS,)


def get_config(variant='original'):
  variants.check('prob_unet_lidc', variant, VARIANTS)
  c = mose_lidc.get_config()
  c.method, c.data.batch, c.steps = METHODS[variant], BATCH[variant], STEPS[variant]
  publish(c, **PUBLISHED)
  return c
