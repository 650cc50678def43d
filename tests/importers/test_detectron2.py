"""Files of Mask2Former's and MaskFormer's authors, written here as detectron2 writes them."""

import functools
import json
import pathlib
import pickle
import re

import jax
import numpy as np
import pytest

from car_jax import checkpoints, registry
from car_jax import config as configs
from car_jax.errors import UserError
from car_jax.importers import __main__ as command
from car_jax.importers import comparison, detectron2, mmseg
from car_jax.importers.transformers import model
from tests.importers import detectron2_models as models
from tests.importers.torch_writer import state_dict, write_zip
from tests.replay.zoo_networks import weights_of

GOLDEN = pathlib.Path('tests/golden/zoo')
STEMS = ('mask2former', 'maskformer')
JOINT = re.compile(r'(.*?)(\.qkv)?\.([qkv])(?:_proj)?\.(weight|bias)')


@functools.cache
def recorded(stem):
  with np.load(GOLDEN / f'{stem}_hf.npz') as z:
    return dict(z)


def transformers_weights(stem):
  return weights_of(recorded(stem))


@functools.cache
def original(stem):
  """The recorded net's weights in its authors' names, joint projections of attention joined."""
  table, parts = {}, {}
  for name, value in transformers_weights(stem).items():
    name = models.from_transformers(name, mask2former=stem == 'mask2former')
    if match := JOINT.fullmatch(name):
      of = f'{match[1]}.qkv.{match[4]}' if match[2] else f'{match[1]}.in_proj_{match[4]}'
      parts.setdefault(of, {})[match[3]] = value
    elif name:
      table[name] = value
  return table | {n: np.concatenate([p[k] for k in 'qkv']) for n, p in parts.items()}


def zoo(path, weights, protocol=4):
  """A file of a model zoo."""
  content = {'model': weights, '__author__': 'third_party', 'matching_heuristics': True}
  path.write_bytes(pickle.dumps(content, protocol))
  return path


def trained(path, weights):
  """A file of a training."""
  named = state_dict(weights | {'criterion.empty_weight': np.ones(12, np.float32)})
  content = {'model': named, 'trainer': {'iteration': 7}, 'optimizer': {'state': {}}}
  return write_zip(path, content | {'iteration': 7})


WRITERS = {
  'zoo.pkl': zoo,
  'zoo2.pkl': lambda path, w: zoo(path, w, 2),
  'zoo5.pkl': lambda path, w: zoo(path, models.older(w), 5),
  'trained.pth': trained,
}


@pytest.mark.parametrize('stem', STEMS)
@pytest.mark.parametrize('kind', WRITERS)
def test_every_kind_of_file_gives_the_same_weights(stem, kind, tmp_path):
  actual = detectron2.opened(WRITERS[kind](tmp_path / kind, original(stem)))
  weights = {n: v for n, v in actual.weights.items() if not n.startswith('criterion')}
  assert weights.keys() == original(stem).keys()
  for name, value in original(stem).items():
    np.testing.assert_array_equal(weights[name], value)


@pytest.mark.parametrize('stem', STEMS)
def test_weights_go_where_those_of_transformers_go(stem):
  entry, classes = model.spec(json.loads(str(recorded(stem)['config'])))
  net = registry.net(entry, num_classes=classes)
  want = model.to_variables(net, transformers_weights(stem))
  actual = detectron2.to_variables(net, original(stem))
  jax.tree.map(np.testing.assert_array_equal, actual, want)
  theirs = registry.net(detectron2.spec(original(stem)), num_classes=classes)
  # what no shape tells, as published; the recorded MaskFormer has half of the heads
  expected = ['head.heads is 4, in the file 8', 'head.inner_dropout is 0.0, in the file 0.1']
  actual = [line for line in comparison.differences(net, theirs) if not line.startswith('backbone')]
  assert actual == (expected if stem == 'maskformer' else [])
  one, two = (x.parts()[0] for x in (net, theirs))
  assert one.plan() == two.plan() if stem == 'maskformer' else one == two


@pytest.mark.parametrize(
  ('stem', 'kind'), [('mask2former', 'zoo5.pkl'), ('maskformer', 'trained.pth')]
)
def test_a_file_becomes_a_run_whose_scores_are_those_recorded(stem, kind, tmp_path, capsys):
  file = WRITERS[kind](tmp_path / kind, original(stem))
  arguments = ['detectron2', str(file), '--out', str(tmp_path / 'run')]
  if stem == 'maskformer':
    arguments.append('--config.method.model.head.heads=4')
  assert command.main(arguments) == 0
  error_text = capsys.readouterr().out
  assert "'model' is taken; left: " in error_text
  with checkpoints.Checkpoints(tmp_path / 'run' / 'checkpoints') as saved:
    state, meta = saved.restore(0, None)
  config = meta['config']
  assert (config['method']['crop'], config['method']['stride']) == (0, 0)
  assert tuple(config['data']['fit']) == (2048, 1024)
  assert meta['data']['num_classes'] == 11
  net = registry.net(config['method']['model'], num_classes=11)
  assert net.mean == (123.675, 116.28, 103.53)
  want = recorded(stem)
  image = np.float32(want['image'] / 127.5 - 1)[None]
  variables = {k: state['net'][k] for k in ('params', 'batch_stats') if state['net'].get(k)}
  logits = jax.jit(lambda v, x: net.apply(v, x, train=False))(variables, image)
  actual = np.moveaxis(np.exp(np.asarray(logits[0], float)), -1, 0)
  errors = json.loads(str(want['float32_error']))
  scale = np.abs(want['semseg']).max()
  np.testing.assert_allclose(
    actual, want['semseg'], rtol=0, atol=scale * max(10 * errors['semseg'], 2e-5)
  )


# The head, the encoder, millions of parameters that their papers say.
PUBLISHED = {
  'mask2former_R50': (models.mask2former, models.resnet(50, deep=False, counted=True), 44),
  'mask2former_R101': (models.mask2former, models.resnet(101, deep=False, counted=True), 63),
  'mask2former_swin_tiny': (models.mask2former, models.swin('tiny'), 47),
  'mask2former_swin_small': (models.mask2former, models.swin('small'), 69),
  'mask2former_swin_base': (models.mask2former, models.swin('base'), 107),
  'mask2former_swin_large': (models.mask2former, models.swin('large'), 215),
  'maskformer_R50': (models.maskformer, models.resnet(50, deep=False, counted=False), 41),
  'maskformer_R101c': (models.maskformer, models.resnet(101, deep=True, counted=False), 60),
  'maskformer_swin_tiny': (models.maskformer, models.swin('tiny'), 42),
  'maskformer_swin_large': (models.maskformer, models.swin('large'), 212),
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_nets_have_these_names_shapes_and_sizes(name):
  *parts, millions = PUBLISHED[name]
  manifest = models.model(*parts)
  weights = {n: np.broadcast_to(np.float32(0), shape) for n, shape in manifest.items()}
  net = registry.net(detectron2.spec(detectron2.renamed(models.older(weights))), num_classes=19)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
  template = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), image)
  template = {k: template[k] for k in ('params', 'batch_stats') if k in template}
  detectron2.to_variables(net, weights, template)
  total = sum(leaf.size for leaf in jax.tree.leaves(template['params']))
  assert abs(total / 1e6 - millions) < 1.5
  backbone = net.parts()[0]
  if name == 'maskformer_R101c':
    assert backbone.plan()[-1] == (2, [1, 2, 4])
  elif 'R' in name:
    assert backbone.plan()[-1] == (2, [1, 1, 1])


@pytest.mark.parametrize(
  ('name', 'variant'),
  [('maskformer_R101c', 'maskformer_r101c'), ('mask2former_swin_large', 'mask2former_swin_large')],
)
def test_configs_of_published_nets_are_those_of_their_files(name, variant):
  manifest = models.model(*PUBLISHED[name][:2])
  weights = {n: np.broadcast_to(np.float32(0), shape) for n, shape in manifest.items()}
  config = configs.load(f'configs/segmenters_cityscapes.py:{variant}')
  theirs, ours = (
    registry.net(detectron2.spec(weights), num_classes=19),
    registry.net(config.method.model.to_dict(), num_classes=19),
  )
  assert comparison.differences(ours, theirs) == []
  shares = ('dropout', 'inner_dropout', 'drop_path')
  for a, b in zip(ours.parts(), theirs.parts(), strict=True):
    assert [getattr(a, n, 0) for n in shares] == [getattr(b, n, 0) for n in shares]


def test_pixels_mean_and_deviation_in_a_file_become_options():
  weights = original('maskformer') | {'pixel_mean': np.full((3, 1, 1), 9, np.float32)}
  assert detectron2.spec(weights)['mean'] == (9, 9, 9)
  assert 'std' not in detectron2.spec(weights)
  with pytest.raises(UserError, match=r'pixel_std \(1,\) is not one number for each of RGB'):
    detectron2.spec(weights | {'pixel_std': np.ones(1, np.float32)})


def imported(path):
  file = detectron2.opened(path)
  return file.state(file.config())


def read(path):
  """The command's message."""
  with pytest.raises(UserError) as e:
    imported(path)
  return str(e.value)


class Call:
  def __init__(self, function, *args):
    self.made = function, args

  def __reduce__(self):
    return self.made


@pytest.mark.parametrize('place', ['beside', 'inside', 'instead'])
def test_code_in_a_file_is_not_run(place, tmp_path):
  bomb = Call(pathlib.Path.touch, tmp_path / 'ran')
  weights = dict(original('maskformer'))
  content = {'model': weights, '__author__': 'x'}
  if place == 'beside':
    content['hooks'] = bomb
  elif place == 'inside':
    weights['sem_seg_head.predictor.query_embed.weight'] = bomb
  else:
    content = bomb
  path = tmp_path / 'x.pkl'
  path.write_bytes(pickle.dumps(content))
  if place == 'beside':
    assert detectron2.opened(path).weights.keys() == weights.keys()
  else:
    assert 'touch' in read(path)
  assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda a: np.array([None, 1]), 'x.pkl is refused: {} is an array without its bytes'),
    (lambda a: a.astype('U3'), '{} is an array of texts, which is no tensor'),
    (lambda a: np.zeros(2, 'f4,i4'), 'x.pkl is refused: {} is an array of kind'),
    (lambda a: a[:0], 'x.pkl is refused: {} is an array of shape (0, 32)'),
    (lambda a: 'text', '{} is a value of type str, which is no tensor'),
    (lambda a: None, '{} is a value of type NoneType, which is no tensor'),
  ],
)
def test_what_is_no_plain_array_is_refused(change, message, tmp_path):
  name = 'sem_seg_head.predictor.query_embed.weight'
  weights = original('maskformer')
  path = zoo(tmp_path / 'x.pkl', weights | {name: change(weights[name])})
  assert message.format(name) in read(path)


def test_numpy_s_arrays_beside_tensors_are_not_taken_for_weights(tmp_path):
  content = {'stats': {'mean': np.ones(3)}, 'averaged': state_dict(original('maskformer'))}
  actual = detectron2.opened(write_zip(tmp_path / 'x.pth', content)).weights
  assert actual.keys() == original('maskformer').keys()


@pytest.mark.parametrize('share', [0, 0.001, 0.3, 0.99])
@pytest.mark.parametrize('kind', ['zoo.pkl', 'trained.pth'])
def test_a_file_that_is_cut_short(kind, share, tmp_path):
  path = WRITERS[kind](tmp_path / kind, original('maskformer'))
  data = path.read_bytes()
  path.write_bytes(data[: int(share * len(data))])
  assert re.search('is empty|cut short|cannot be read|is refused', read(path))


ONE = np.ones(4, np.float32)
FOREIGN = {
  'backbone.bottom_up.stem.conv1.weight': 'it is a detection or panoptic model of detectron2',
  'roi_heads.box_predictor.cls_score.weight': 'it is a detection or panoptic model of detectron2',
  'sem_seg_head.predictor.weight': "it is MaskFormer's baseline, which classifies pixels",
  'stem.conv1.weight': 'it is an encoder alone',
  'patch_embed.proj.weight': 'it is an encoder alone',
  'conv1_w': 'it is an encoder alone',
  'segformer.encoder.patch_embeddings.0.proj.weight': 'it is a SegFormer encoder in the names of',
  'odd.weight': 'its names begin with odd.weight',
}


@pytest.mark.parametrize('name', FOREIGN)
def test_other_files_are_named(name, tmp_path):
  message = read(zoo(tmp_path / 'x.pkl', {name: ONE}))
  assert 'x.pkl is no MaskFormer or Mask2Former of detectron2: ' + FOREIGN[name] in message


def test_other_importers_name_this_one(tmp_path):
  path = zoo(tmp_path / 'x.pkl', original('mask2former'))
  with pytest.raises(UserError) as e:
    mmseg.opened(path).config()
  assert 'is no segmenter: it is a MaskFormer or Mask2Former of detectron2\n' in str(e.value)
  assert '`car-jax import detectron2 FILE` reads it' in str(e.value)


PIXELS, PREDICTOR = 'sem_seg_head.pixel_decoder.', 'sem_seg_head.predictor.'


@pytest.mark.parametrize(
  ('stem', 'without', 'more', 'message'),
  [
    ('maskformer', f'{PIXELS}layer_4.weight', {}, f'{PIXELS}layer_4.weight is not in the file'),
    ('maskformer', f'{PIXELS}layer_3.weight', {}, 'pixels/smooth3/conv/kernel (3, 3, 32, 32): not'),
    ('mask2former', 'backbone.norm2.bias', {}, 'backbone/stage3_norm/bias (48,): not in the file'),
    ('maskformer', '', {'odd': ONE}, 'odd (4,): no place for it'),
    ('mask2former', '', {f'{PREDICTOR}input_proj.0.bias': ONE}, 'input_proj.0.bias (4,): no place'),
    (
      'mask2former',
      '',
      {'backbone.absolute_pos_embed': ONE},
      'absolute_pos_embed (4,): no place for it',
    ),
    (
      'maskformer',
      '',
      {f'{PREDICTOR}class_embed.bias': ONE},
      'classify/bias: (4,) in the file, (12,) in the network',
    ),
    (
      'mask2former',
      '',
      {f'{PREDICTOR}static_query.weight': ONE},
      'query_feat.weight is there under its older name too',
    ),
    (
      'maskformer',
      '',
      {f'{PIXELS}transformer.encoder.layers.0.norm1.bias': ONE},
      'belongs to a transformer encoder, as for panoptic',
    ),
    ('mask2former', '', {f'{PIXELS}mask_features.weight': np.ones((99999, 1))}, 'more rows than'),
    (
      'mask2former',
      '',
      {f'{PREDICTOR}query_feat.weight': np.ones((), np.float32)},
      '() has other axes',
    ),
  ],
)
def test_files_that_fit_half(stem, without, more, message, tmp_path):
  weights = {n: w for n, w in (original(stem) | more).items() if n != without}
  assert message in read(zoo(tmp_path / 'x.pkl', weights))


def config_of(path, model):
  path.write_text(
    'from ml_collections import ConfigDict\ndef get_config():\n'
    f'  return ConfigDict(dict(method=dict(name="supervised", model={model!r}),'
    ' data=dict(name="cityscapes")))\n'
  )
  return str(path)


def test_a_config_must_describe_the_file_s_net(tmp_path, capsys):
  file = zoo(tmp_path / 'x.pkl', original('maskformer'))
  model = detectron2.spec(original('maskformer'))
  other = model | {'head': model['head'] | {'queries': 7}}
  segnet = {'name': 'segnet'}
  for wrong, message in (
    (other, 'head.queries is 7, in the file 10'),
    (segnet, "holds a segmenter of detectron2, the config trains 'segnet'"),
  ):
    config = config_of(tmp_path / 'c.py', wrong)
    arguments = ['detectron2', str(file), '--config', config, '--out', str(tmp_path / 'run')]
    assert command.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()
