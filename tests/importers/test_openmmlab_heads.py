"""What the heads of mmsegmentation have in common: which maps they read, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.importers.openmmlab import model
from car_jax.nn.init import initialize

NORM = dict(type='BN', requires_grad=True)
RESNET = dict(type='ResNetV1c', depth=18, base_channels=4, stem_channels=4)
FIVE = dict(type='FPN', in_channels=[4, 8, 16, 32], out_channels=4, num_outs=5)
HEADS = {
  'FCNHead': dict(num_convs=1),
  'PSPHead': dict(),
  'APCHead': dict(),
  'DepthwiseSeparableASPPHead': dict(c1_in_channels=4, c1_channels=2),
}


def config(kind='PSPHead', *, backbone=RESNET, neck=None, **options):
  head = dict(type=kind, in_channels=32, channels=4, num_classes=3, norm_cfg=NORM)
  head |= HEADS.get(kind, {})
  return dict(type='EncoderDecoder', backbone=backbone, neck=neck, decode_head=head | options)


def logits(net, x):
  """Of a start that is the same for every net with the same weights."""
  variables = initialize(net, 0, x, train=False)
  return jax.jit(lambda v: net.apply(v, x, train=False))(variables)


@pytest.mark.parametrize('kind', HEADS)
def test_a_head_reads_the_map_that_its_config_names(kind):
  image = jnp.asarray(np.random.default_rng(1).random((1, 61, 93, 3)), jnp.float32)
  seen = lambda k: logits(model.net(config(kind, neck=FIVE, in_index=k)), image)
  fourth, last = seen(3), seen(4)
  np.testing.assert_array_equal(fourth, seen(-2))
  np.testing.assert_array_equal(last, logits(model.net(config(kind, neck=FIVE)), image))
  assert np.abs(fourth - last).max() > 1e-3 * np.abs(last).max() > 0


@pytest.mark.parametrize(
  ('kind', 'options'),
  [
    *((kind, dict(in_index=4)) for kind in HEADS),
    ('ANNHead', dict(in_index=[3, 4], project_channels=2)),
    ('SETRUPHead', dict(in_index=4)),
    ('SETRMLAHead', dict(in_index=[0, 4], mla_channels=2)),
    ('SegmenterMaskTransformerHead', dict(in_index=4, num_layers=1, num_heads=1, embed_dims=4)),
  ],
)
def test_a_map_that_is_not_there_is_named(kind, options):
  if kind.startswith('Segmenter'):
    options = options | dict(norm_cfg=dict(type='LN'))
  net, x = model.net(config(kind, **options)), jnp.zeros((1, 32, 32, 3))
  with pytest.raises(UserError, match='has no map 4\n  they are 0 to 3'):
    jax.eval_shape(lambda: net.init(jax.random.key(0), x, train=False))


MLA = dict(type='MLANeck', in_channels=[4] * 4, out_channels=4, act_cfg=dict(type='ReLU'))


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (config(out_channels=1), 'decode_head.out_channels = 1'),
    (config(norm_cfg=NORM | dict(eps=1e-3)), 'decode_head.norm_cfg.eps = 0.001'),
    (config(norm_cfg=dict(type='GN', num_groups=2)), "decode_head.norm_cfg.type = 'GN'"),
    (config(norm_cfg=None), 'decode_head.norm_cfg = None'),
    (config(input_transform='resize_concat'), "decode_head.input_transform = 'resize_concat'"),
    (config('DepthwiseSeparableASPPHead', c1_in_channels=0), 'decode_head.c1_in_channels = 0'),
    (config(backbone=RESNET | dict(norm_cfg=NORM | dict(eps=1e-3))), 'backbone.norm_cfg.eps'),
    (config(neck=MLA | dict(norm_cfg=NORM | dict(eps=1e-3))), 'neck.norm_cfg.eps = 0.001'),
    (config(neck=MLA), 'no model.neck.norm_cfg'),
  ],
)
def test_what_would_change_numbers_is_refused(given, message):
  with pytest.raises(UserError) as e:
    model.spec(given)
  assert message in str(e.value)


def test_what_changes_no_number_is_read():
  same = dict(out_channels=3, threshold=None, input_transform=None, ignore_index=0)
  want = model.spec(config(norm_cfg=dict(type='SyncBN')))
  assert model.spec(config(**same)) == want


def test_a_linear_head_needs_no_norms():
  given = config('FCNHead', num_convs=0, concat_input=False)
  del given['decode_head']['norm_cfg']
  assert model.net(given).parts()[2].num_convs == 0
  with pytest.raises(UserError, match='norm_cfg'):
    model.spec(given | dict(decode_head=given['decode_head'] | dict(num_convs=1)))


def test_the_defaults_of_a_mix_transformer_are_mmsegmentations():
  head = dict(in_channels=[64, 128, 256, 512], in_index=[0, 1, 2, 3])
  plain = config('SegformerHead', backbone=dict(type='MixVisionTransformer'), **head)
  entry = model.spec(plain)[0]['backbone']
  assert (entry['widths'], entry['depths']) == ((64, 128, 256, 512), (3, 4, 6, 3))
  assert (entry['heads'], entry['epsilon']) == ((1, 2, 4, 8), 1e-6)
