"""MaskFormer and Mask2Former against recorded outputs of transformers' classes."""

import json

import jax
import numpy as np

from car_jax import registry
from car_jax.importers.transformers import model
from tests.replay import Replay, replays
from tests.replay.zoo_networks import flat, kept, weights_of


@replays('zoo', 'mask2former_hf', 'maskformer_hf')
def forward(r: Replay) -> None:
  entry, classes = model.spec(json.loads(str(r['config'])))
  net = registry.net(entry, num_classes=classes)
  image = np.float32(r['image'] / 127.5 - 1)[None]
  template = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), image)
  template = {k: template[k] for k in ('params', 'batch_stats') if k in template}
  variables = model.to_variables(net, weights_of(r), template)
  errors = json.loads(str(r['float32_error']))
  run = lambda v, x: net.apply(v, x, train=False, mutable=['intermediates'])
  logits, state = jax.jit(run)(variables, image)
  ours = {'class_logits': np.asarray(state['intermediates']['class_logits'][0][0])}
  (ours['mask_logits'],) = flat(state['intermediates'], 'mask_logits')
  ours['semseg'] = np.moveaxis(np.exp(np.asarray(logits[0], float)), -1, 0)
  for key, value in ours.items():
    r.check(key, value, max(10 * errors[key], 2e-5), relative=True)
  kept(r)
