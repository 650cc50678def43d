"""MoSE on LIDC with the light network, 2.3 M parameters (Gao et al., ICLR 2023).

  car-jax prepare lidc_v1 --source data_lidc.pickle
  car-jax train --config configs/mose_lidc_light.py --workdir runs/mose_lidc_light

As configs/mose_lidc.py, with four levels of the U-Net in place of seven.
"""

from car_jax.configs import mose_lidc


def get_config():
  c = mose_lidc.get_config()
  c.method.model.widths = (32, 64, 128, 192)
  c.published = {}  # of the larger net
  return c
