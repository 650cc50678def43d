"""CAR on the embedded data: real four-reader LIDC masks with rendered images. Nothing to download.

  car-jax prepare lidc_masks
  car-jax train --config configs/car_lidc_masks.py --workdir runs/car_lidc_masks

The published nets and losses at 128x128; for a GPU. On a laptop take configs/demo.py.
"""

from car_jax.configs.car_lidc import get_config as car_lidc


def get_config():
  c = car_lidc()
  c.data.name = 'lidc_masks'
  c.data.mirror = c.data.rot90 = True
  c.steps, c.eval_every, c.save_every = 100_000, 2_500, 1_000
  return c
