"""PHiSeg on LIDC (Baumgartner et al., MICCAI 2019), 128x128, split v1.

  car-jax prepare lidc_v1 --source data_lidc.pickle
  car-jax train --config configs/phiseg_lidc.py --workdir runs/phiseg_lidc

Five latent levels on seven resolutions, the rate and decay of UNet-Zoo's port. That lowers the rate
to 1e-4 once the loss of single steps has not fallen for 50,000; here it is constant, as in the
original. The divergence is the right one, the latents begin alike: port_kl and wide_latents of
config.method give the port's. Data and steps are MoSE's; the images are not standardised, as there.
For a GPU.
"""

from car_jax.configs import mose_lidc
from car_jax.configs._published import CCDM, papers, publish

PUBLISHED = papers(
  f'PHiSeg, {CCDM}: LIDC, split v1',
  ged16=0.262,
  ged32=0.247,
  ged100=0.224,
  hm_iou16=0.586,
  hm_iou32=0.595,
)


def get_config():
  c = mose_lidc.get_config()
  c.method = dict(
    name='phiseg',
    model=dict(name='phiseg', widths=(32, 64, 128, 192, 192, 192, 192), levels=5),
    optim=dict(lr=1e-3, weight_decay=1e-5),
    pixel_mean=(0.5,),
    pixel_std=(1.0,),
  )
  c.data.batch = 12
  publish(c, **PUBLISHED)
  return c
