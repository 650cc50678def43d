"""Flow matching from draws of an SSN (ATFM) on LIDC, 128x128, split v1: two trainings.

  car-jax prepare lidc_v1 --source data_lidc.pickle
  car-jax train --config configs/ssn_lidc.py:gtr --workdir runs/ssn_lidc_gtr
  car-jax train --config configs/atfm_lidc.py --workdir runs/atfm_lidc

The first stage's run is config.init.start; for one in another folder set
--config.init.start=FOLDER:net. Data are MoSE's, split by series, not the release's: see PUBLISHED.
Kernels are standardised; the release's are multiplied by their deviation, as they are in a run
that `car-jax import atfm` makes. 200 epochs of 9,600 slices, as released. For a GPU.
"""

from car_jax.configs import mose_lidc, ssn_lidc
from car_jax.configs._published import papers, publish

PUBLISHED = papers(
  'ATFM: LIDC, split v1; 79 % of the slices that its script tests on were trained on',
  ged16=0.206,
  ged32=0.188,
  ged100=0.162,
  hm_iou32=0.667,
)


def get_config():
  c = mose_lidc.get_config()
  first = ssn_lidc.METHODS['gtr']
  c.method = dict(
    name='flow_matching',
    model=dict(name='linear_attention_unet', width=128, multipliers=(1, 2, 4)),
    optim=dict(name='adam', lr=1e-4),
    start=first,
    all_readers=True,
    solver='euler',
    sampling_steps=25,
    one_channel=True,
    pixel_mean=(0.0,),
    pixel_std=(1.0,),
  )
  c.init = dict(start='runs/ssn_lidc_gtr:net')
  c.data.batch, c.steps, c.eval_every, c.save_every = 6, 320_000, 5_000, 5_000
  c.evals.val.split = 'validation[:200]'
  publish(c, **PUBLISHED)
  return c
