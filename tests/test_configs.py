"""Every config file is set up as it is, and trains one step at toy size (most: make test-all)."""

import dataclasses
import importlib
import pathlib

import numpy as np
import pytest

from car_jax import config as configs
from car_jax import loop, registry
from car_jax.configs import (
  families_lidc_masks,
  families_street_scenes,
  segmenters_street_scenes,
)
from car_jax.data import class_flips, fake, labels, opening, transforms
from car_jax.errors import UserError
from car_jax.evaluate import plan as plans
from car_jax.generate import command
from car_jax.generate.options import ObjectOptions, StyleOptions
from car_jax.reliability import plan, study_options

FILES = sorted(p.stem for p in pathlib.Path('configs').glob('[!_]*.py'))
# of one method once small: one of them trains; smoke's others in test_sharding, test_resume
TWINS = dict(car_lidc_masks='car_lidc', mose_lidc_light='mose_lidc', mose_lidc_masks='mose_lidc')
REGISTRIES = ['genval', 'relis', 'reliability_validation']  # tests/importers/test_registry.py
STUDIES = [f for f in FILES if f.startswith('reliability') and f not in REGISTRIES]
GENERATING = ['genval_ood', 'genval_style']  # nor these
VARIANTS = {'smoke': ['lts'], 'demo': ['car', 'mose', 'deterministic']}
VARIANTS |= {'lts_street_scenes': ['lts', 'segmenter']}
VARIANTS |= {'prob_unet_lidc': ['original', 'port'], 'ssn_lidc': ['unet', 'gtr']}
VARIANTS |= {'families_lidc_masks': [*families_lidc_masks.METHODS]}
VARIANTS |= {'families_street_scenes': [*families_street_scenes.METHODS]}
VARIANTS |= {'segmenters_street_scenes': [*segmenters_street_scenes.MODELS]}
VARIANTS |= {'genval_tiny': ['diffusion', 'controlnet'], 'genval_controlnet': ['efficient']}
VARIANTS |= {'sac_gta5': ['fcn8s'], 'sac_synthia': ['vgg16_base'], 'sac_street_scenes': ['oracle']}
VARIANTS |= {'zoo': ['car-lidc-masks', 'segformer-street-scenes', 'sac-street-scenes']}
PARTS = ('upernet_swin_large', 'icnet_r18', 'setr_pup', 'ann_r50', 'apcnet_r50', 'ccnet_r50')
PARTS += ('gcnet_r50', 'pspnet_r18', 'upernet_r18', 'upernet_bit_r50', 'upernet_convnext_base')
PARTS += ('setr_naive', 'setr_mla', 'segmenter', 'bisenetv1_r18', 'bisenetv2', 'semfpn_r50')
PARTS += ('deeplabv3plus_r18', 'segformer_b0', 'maskformer_r101c', 'mask2former_swin_large')
VARIANTS |= {'segmenters_cityscapes': [*PARTS]}  # mobilenetv3 takes 385 pixels and more
# of the others the methods are trained by tests of their own; all of them by make test-all
QUICK = (
  'car_toy',
  'lts_street_scenes',
  'sac_synthia',
  *(f'segmenters_cityscapes:{v}' for v in PARTS[:3]),
)
ADAPTATION = [f for f in FILES if f.startswith('sac_')]
SMALL = {'widths': (4, 4, 4, 4, 4), 'depths': (1, 1, 1, 1, 1), 'hidden': 4, 'latent': 2}
FOUR_STAGES = {
  'segformer': dict(widths=(4, 4, 8, 8), depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), features=4),
  'deeplabv3plus': dict(stem_channels=4, blocks=(1, 1, 1, 1), features=4, low_features=4),
  'deeplabv2_resnet': dict(stem_channels=4, blocks=(1, 1, 1, 1), rates=(1, 2)),
  'vit': dict(width=8, depth=4, heads=2, image_size=(32, 32), outputs=(0, 1, 2, 3)),
  'swin': dict(width=4, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1), window=2),
  'convnext': dict(widths=(4, 4, 4, 4), depths=(1, 1, 1, 1)),
  'mit': dict(widths=(4, 4, 8, 8), depths=(1, 1, 1, 1), heads=(1, 1, 2, 2)),
  'resnetv2': dict(blocks=(1, 1, 1, 1), widths=(128,) * 4),
  'bisenetv2': dict(detail_features=(4, 4, 8), semantic_features=(4, 4, 4, 8)),
  'mask2former': dict(features=32, mask_features=32, heads=2, depth=1, pixel_depth=1, queries=3),
  'maskformer': dict(features=32, mask_features=32, width=32, heads=2, depth=1, queries=3),
  'segmenter': dict(features=8, heads=2, depth=1),
  'linear_attention_unet': dict(width=8, multipliers=(1, 2)),
  'icnet': dict(light_features=4, pyramid_features=8),
  'guided_unet': dict(widths=(4, 4), blocks=1, attention=(), head_width=0, groups=2),
  'deeplabv2_vgg': dict(widths=(4,) * 5, depths=(1,) * 5, features=4, rates=(1, 2)),
  'fcn8s_vgg': dict(widths=(4,) * 5, depths=(1,) * 5, features=4),
}


PIPELINE = 'tests/golden/diffusers/pipeline'  # of Stable Diffusion's kind, tiny
CAPTIONED = {
  'diffusion': dict(
    widths=(4,), attention=(False,), heads=2, groups=2, text_width=4, text_layers=1, vocab_size=2000
  ),
  'controlnet': dict(weights=PIPELINE, hint_widths=(2, 4), start=''),
}


def made_small(config) -> None:
  """A config of scenes with captions, drawn and small, and the networks."""
  config.method.update(CAPTIONED[config.method.name])
  own = config.method.name == 'diffusion'
  config.data.update(
    root='', batch=2, size=32, height=32, count=2, tokenizer='' if own else PIPELINE
  )


def shrink(node) -> None:
  """Makes every net of a config small, whatever its name."""
  sizes = {'segnet': ('widths', 'depths'), 'unet_generator': ('hidden', 'latent')}
  sizes |= dict.fromkeys(('mose', 'unet', 'prob_unet', 'phiseg'), ('widths',))
  sizes |= {'toy_calnet': ('hidden',)}
  sizes |= {'pixel_discriminator': ('hidden',), 'unet_vae_generator': ('hidden', 'latent')}
  for value in node.values():
    if hasattr(value, 'values'):
      for key in sizes.get(value.get('name', ''), ()):
        value[key] = SMALL[key]
      small = FOUR_STAGES.get(value.get('name', ''), {})  # a head may be called as a net is
      value.update({k: v for k, v in small.items() if k in value})
      if 'stem_channels' in value and 'depth' in value:
        value.update(stem_channels=8, blocks=(1, 1, 1, 1))
        value.update({k: v for k, v in dict(width=0, multi_grid=()).items() if k in value})
      if isinstance(value.get('features'), int) and 'heads' not in value:
        value['features'] = min(value['features'], 16)
      shrink(value)


def load(name):
  file, _, variant = name.partition(':')
  return configs.load(f'configs/{file}.py:{variant}' if variant else f'configs/{file}.py')


NAMES = [
  f'{f}:{v}' if v else f
  for f in FILES
  if f not in STUDIES + REGISTRIES + GENERATING
  for v in VARIANTS.get(f, [''])
]


def info_of(config):
  """What is known of a config's data, as far as methods and scores must know it."""
  if config.data.name in ('toy_regression', 'captioned'):
    return opening.open_dataset(config.data).info
  info = fake.open_dataset(num_classes=2 if 'lidc' in config.data.name else 19).info
  if flips := config.data.get('class_flips'):
    flips = class_flips.parse(flips, labels.CLASS_NAMES, labels.SCORED)
    info = dataclasses.replace(info, flips=flips)
  return info


@pytest.mark.parametrize('name', NAMES)
def test_its_method_and_scores_can_be_had(name):
  config = load(name)
  configs.check(config)
  info = info_of(config)
  if config.data.name not in ('toy_regression', 'captioned') and not config.data.get('source'):
    transforms.from_config(config.data, True)
  assert callable(loop.build_method(config, info, 100).step)
  for spec in (config.report, *config.evals.values()):
    assert not spec or plans.plan(dict(spec), info).metrics


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=[pytest.mark.slow] * (not {name, name.partition(':')[0]} & {*QUICK}))
    for name in NAMES
    if name not in TWINS
  ],
)
def test_one_step(name, tmp_path):
  config = load(name)
  config.unlock()
  if config.data.name == 'captioned':
    made_small(config)
  elif config.data.name != 'toy_regression':
    if not (two := config.data.get('source')):
      transforms.from_config(config.data, True)
    shrink(config.method)
    small = dict(name='fake', size=32, batch=4, count=8)
    if flips := config.data.get('class_flips'):  # of classes that the fake data have not
      assert len(class_flips.parse(flips, labels.CLASS_NAMES, labels.SCORED)) == 5
      small |= dict(readers=1, black_box=True, class_flips='background:4/17,disc 1:8/17')
    if two:  # with the options of the images, but for their size
      cut = lambda part: part.to_dict() | (dict(size=(32, 32)) if part.get('size') else {})
      small |= {k: cut(config.data[k]) for k in ('source', 'target')}
      small['source']['name'], small['train'] = 'fake', 'adaptation'
    config.data = small
  config.steps, config.log_every = 1, 1
  config.evals, config.best, config.init, config.report = {}, '', {}, {}
  state = loop.train(config, tmp_path / 'run')
  assert int(state.step) == 1


@pytest.mark.parametrize(('name', 'twin'), TWINS.items())
def test_twins_are_the_same_once_small(name, twin):
  specs = []
  for file in (name, twin):
    config = configs.load(f'configs/{file}.py')
    config.unlock()
    shrink(config.method)
    specs.append(config.method.to_dict())
  assert specs[0] == specs[1]


@pytest.mark.parametrize('file', ADAPTATION)
def test_adaptation_in_every_variant(file):
  """What one step of a few variants does not show: methods, entries of the data, scores."""
  module = importlib.import_module(f'configs.{file}')
  info = fake.open_dataset(num_classes=19).info
  for variant in module.METHODS if file == 'sac_street_scenes' else module.STEPS:
    config = configs.load(f'configs/{file}.py:{variant}')
    method = registry.method(config.method.to_dict(), num_classes=19, steps_per_epoch=10)
    assert method.net
    assert method.optimizer
    for spec in (config.report, *config.evals.values()):
      assert plans.plan(dict(spec), info).metrics
    if 'source' in config.data:
      entries = {k: config.data[k].to_dict() for k in ('source', 'target')}
      entries['source']['name'] = 'fake'
      made = dict(name='fake', batch=4, train='adaptation', num_classes=19) | entries
      made['source']['num_classes'] = 19
      split = opening.open_dataset(made).split('adaptation')
      assert not split.groups or split.views == getattr(method, 'views', 0)


@pytest.mark.parametrize('name', STUDIES)
def test_a_study_is_planned(name):
  assert plan.plan(study_options.load(f'configs/{name}.py')).sets
  with pytest.raises(UserError, match='is a study, nothing to train'):
    configs.load(f'configs/{name}.py')


@pytest.mark.parametrize(
  'name',
  [
    *('smoke', 'demo', 'segformer_cityscapes', 'deeplabv3plus_cityscapes'),
    *('genval_tiny', 'genval_controlnet', 'zoo', *ADAPTATION),
  ],
)
def test_an_unknown_variant_names_the_known_ones(name):
  with pytest.raises(UserError, match='no variant'):
    configs.load(f'configs/{name}.py:nothing')


@pytest.mark.parametrize('name', GENERATING)
def test_what_generates_is_completed(name):
  kind = name.removeprefix('genval_')
  schema = {'style': StyleOptions, 'ood': ObjectOptions}[kind]
  for variant in ('', ':reference', ':tiny'):
    path = f'configs/{name}.py{variant}'
    assert command.load(path, (), schema).weights.startswith('weights/')
    with pytest.raises(UserError, match=f'nothing to train\n.*car-jax generate {kind} --config'):
      configs.load(path)


def test_a_family_of_an_hour_is_that_of_minutes_for_longer():
  short, long = (load(f'families_lidc_masks:ccdm{end}').to_dict() for end in ('', '_hour'))
  longer = ('steps', 'eval_every', 'save_every')
  ratios = [long.pop(key) / short.pop(key) for key in longer]
  np.testing.assert_allclose(ratios, 3600 / 450, rtol=5e-3)
  assert long == short
  with pytest.raises(UserError, match='ccdm_hour'):
    load('families_lidc_masks:ccdm_hours')
