"""MoSE on LIDC from one reader per image (Gao et al., ICLR 2023): as configs/mose_lidc.py.

  car-jax prepare lidc_v1 --source data_lidc.pickle
  car-jax train --config configs/mose_lidc_1annot.py --workdir runs/mose_lidc_1annot

Training sees each image's first reader only; validation and report score against all four.
"""

from car_jax.configs import mose_lidc
from car_jax.configs._published import publish


def get_config():
  c = mose_lidc.get_config()
  c.method.one_annotation = True
  c.method.gate_weight = 10.0
  publish(c, **mose_lidc.released(0.243, 0.599, 0.00096))
  return c
