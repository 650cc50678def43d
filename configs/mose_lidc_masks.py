"""MoSE on the embedded data: real four-reader LIDC masks with rendered images.

  car-jax prepare lidc_masks
  car-jax train --config configs/mose_lidc_masks.py --workdir runs/mose_lidc_masks

The released network and loss (Gao et al., ICLR 2023) at 128x128; for a GPU. What is published
is of CT (configs/mose_lidc.py).
"""

from car_jax.configs import mose_lidc


def get_config():
  c = mose_lidc.get_config()
  c.data.name = 'lidc_masks'
  c.steps, c.eval_every, c.save_every = 116_600, 2_915, 1_000
  return c
