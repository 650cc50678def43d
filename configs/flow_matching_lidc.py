"""Flow matching on LIDC as MedFM has it, 128x128, split v1.

  car-jax prepare lidc_v1 --source data_lidc.pickle
  car-jax train --config configs/flow_matching_lidc.py --workdir runs/flow_matching_lidc

One channel, the midpoint rule with 100 steps, guidance: 400 passes of the net for a sample, so that
validation is of 50 images. Data are MoSE's, each image stretched to 0 and 1, as there.
--config.method.solver=euler --config.method.sampling_steps=25 --config.method.guidance=0 takes 25
passes. For a GPU.
"""

from car_jax.configs import mose_lidc
from car_jax.configs._published import papers, publish

PUBLISHED = papers(
  'MedFM (Huynh et al.): LIDC, a split of its own, where MoSE has 0.257 and 0.583',
  ged16=0.202,
  hm_iou16=0.610,
)


def get_config():
  c = mose_lidc.get_config()
  c.method = dict(
    name='flow_matching',
    model=dict(
      name='guided_unet',
      widths=(64, 128, 256, 256),
      blocks=2,
      attention=(2,),
      head_width=0,
      heads=1,
      dropout=0.1,
      scale_shift=True,
      resampling='pooling',
    ),
    optim=dict(name='adamw', lr=1e-4, b1=0.9, b2=0.95, weight_decay=0.01, ema=0.999),
    solver='midpoint',
    sampling_steps=100,
    image_dropout=0.5,
    guidance=0.3,
    one_channel=True,
    stretched=True,
    pixel_mean=(0.0,),
    pixel_std=(1.0,),
  )
  c.data.batch, c.steps, c.eval_every, c.save_every = 24, 200_000, 5_000, 5_000
  c.evals.val.split = 'validation[:50]'
  publish(c, **PUBLISHED)
  return c
