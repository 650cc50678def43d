"""CAR, MoSE and a deterministic net at laptop size, 64x64: what `make demo` trains and compares.

  car-jax prepare lidc_masks --size 64
  car-jax train --config configs/demo.py:car --workdir runs/demo/car

Variants `:car`, `:mose` and `:deterministic`; their numbers of steps take equal time on a CPU.
"""

from typing import Any

from ml_collections import ConfigDict

from car_jax import variants

STEPS = dict(car=750, mose=750, deterministic=750)
ADAM = dict(b1=0.5, b2=0.99, weight_decay=5e-4)
METHODS: dict[str, dict[str, Any]] = dict(
  car=dict(
    name='car',
    calnet=dict(name='segnet', widths=(8, 16, 24, 32, 32), depths=(2, 2, 2, 2, 2), dropout=0.05),
    generator=dict(name='unet_generator', hidden=12, latent=8),
    discriminator=dict(name='pixel_discriminator', hidden=8),
    optim=dict(
      calnet=ADAM | dict(lr=1e-3),
      generator=ADAM | dict(lr=1e-3),
      discriminator=ADAM | dict(lr=5e-4),
    ),
    samples=4,
    adversarial_weight=10.0,
    calibration_weight=5.0,
    critic_steps=1,  # D learns whenever it is not too good: the run is short
    rest_steps=0,
  ),
  mose=dict(
    name='mose',
    model=dict(name='mose', widths=(12, 24, 36, 48), latent=1, experts=4),
    optim=dict(lr=2e-3, weight_decay=1e-5),
    samples=(2,),
    cost='iou',
    row_limits=(0.5, 1.0),
    row_patience=10,
    rate_patience=10,
  ),
  deterministic=dict(
    name='supervised',
    model=dict(name='segnet', widths=(10, 20, 30, 40, 40), depths=(2, 2, 2, 2, 2), dropout=0.05),
    optim=ADAM | dict(lr=1e-3),
  ),
)
VARIANTS = (*METHODS,)


def get_config(variant='car'):
  variants.check('demo', variant, VARIANTS)
  c = ConfigDict()
  c.method = METHODS[variant]
  c.data = dict(name='lidc_masks/size64', size=64, batch=12, eval_batch=32)
  c.data.mirror = c.data.rot90 = True
  c.steps, c.log_every, c.eval_every, c.save_every, c.seed = STEPS[variant], 25, 150, 150, 0
  c.evals = dict(val=dict(split='validation[:160]', samples=16, metrics=('ged16',)))
  c.best = 'val/ged16:min'
  c.report = dict(split='test[:480]', samples=16, metrics=('ged16', 'hm_iou16', 'ece'))
  return c
