"""Small nets of the families of ambiguous segmentation, alike but for the sizes of the data."""

NORM = dict(norm_momentum=0.1)  # of nets with batch norm: these trainings are short


def methods(
  widths,
  *,
  guided,
  latent=6,
  draws=20,
  diffusion_steps=10,
  sampling_steps=5,
):
  """Entries of config.method by name. widths: of the U-Nets; guided: of those that see the time;
  draws: of a training step of SSN."""
  adam, averaged = dict(lr=1e-3, weight_decay=1e-5), dict(lr=1e-3, ema=0.99)
  net = dict(name='guided_unet', widths=guided, blocks=1, attention=(8,), head_width=16, groups=8)
  return dict(
    ssn=dict(
      name='ssn',
      model=dict(name='unet', widths=widths, **NORM),
      optim=dict(lr=1e-3),
      rank=10,
      samples=draws,
      factor_scale=0.1,  # else many samples turn the background over for long
    ),
    prob_unet=dict(
      name='prob_unet',
      model=dict(name='prob_unet', widths=widths, latent=latent),
      optim=adam,
      beta=1.0,
    ),
    phiseg=dict(
      name='phiseg', model=dict(name='phiseg', widths=widths, levels=3, **NORM), optim=adam
    ),
    ccdm=dict(name='ccdm', model=net, optim=averaged, diffusion_steps=diffusion_steps),
    flow_matching=dict(
      name='flow_matching',
      model=net | dict(scale_shift=True, resampling='pooling'),
      optim=averaged,
      solver='euler',
      sampling_steps=sampling_steps,
      time_scale=100.0,
    ),
  )
