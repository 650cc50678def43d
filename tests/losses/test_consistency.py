"""Warps, pooled views, class prior, thresholds and losses against loops over pixels in numpy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.losses import consistency
from car_jax.nn import warp
from tests.whole import whole

B, T, H, W, C = 4, 2, 5, 8, 3
RNG = np.random.default_rng(0)
PROBS = RNG.dirichlet(np.full(C, 0.4), (B, H, W)).astype(np.float32)
LOGITS = RNG.normal(size=(B, H, W, C)).astype(np.float32)


def sampled(maps, theta):
  """Each output pixel: where it looks, and the four pixels around that place."""
  out = np.zeros(maps.shape)
  for b, i, j in np.ndindex(maps.shape[:3]):
    u, v = theta[b] @ [(2 * j + 1) / W - 1, (2 * i + 1) / H - 1, 1]
    x, y = ((u + 1) * W - 1) / 2, ((v + 1) * H - 1) / 2
    for row, column in itertools.product(range(H), range(W)):
      share = max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row))
      out[b, i, j] += share * maps[b, row, column]
  return out


def thetas():
  zoomed = np.array([[0.6, 0, 0.3], [0, 0.6, -0.2]])
  flipped = np.array([[-1.7, 0, 0.1], [0, 1.7, 0.5]])
  turned = np.array([[0.8, 0.3, 0], [-0.5, 0.9, 0.2]])
  return np.stack([np.eye(2, 3), zoomed, flipped, turned])


def test_a_warp_is_bilinear_with_zeros_outside():
  found = jax.jit(warp.sample)(PROBS, thetas().astype(np.float32))
  np.testing.assert_allclose(found, sampled(PROBS, thetas()), atol=1e-5)
  np.testing.assert_array_equal(found[0], PROBS[0])  # the identity moves nothing


def test_a_flip_there_and_back_is_nothing():
  flip = np.broadcast_to(np.array([[-1, 0, 0], [0, 1, 0]], np.float32), (B, 2, 3))
  np.testing.assert_allclose(warp.sample(PROBS, flip), PROBS[:, :, ::-1], atol=1e-6)


def test_products_zoom_as_gathers_do():
  rng = np.random.default_rng(3)
  maps = rng.random((6, 12, 20, 3)).astype(np.float32)
  theta = np.zeros((6, 2, 3), np.float32)
  theta[:, [0, 1], [0, 1]] = rng.uniform(0.4, 1.7, (6, 2)) * rng.choice([-1, 1], (6, 2))
  theta[1:, :, 2] = rng.uniform(-0.8, 0.8, (5, 2))
  np.testing.assert_allclose(warp._by_products(maps, theta), warp.sample(maps, theta), atol=2e-6)
  np.testing.assert_array_equal(warp.zoomed(maps, theta), warp.sample(maps, theta))  # on a CPU


def test_wide_maps_keep_the_places_between_pixels():
  """A shift by a tenth of a pixel at the end of 2048, where float32 numbers are 1e-4 apart."""
  ramp = np.arange(2048, dtype=np.float32)[None, None, :, None] % 2
  shift = np.array([[[1, 0, 0.2 / 2048], [0, 1, 0]]], np.float32)
  found = np.asarray(warp.sample(ramp, shift))[0, 0, :-1, 0]
  np.testing.assert_allclose(found, np.where(np.arange(2047) % 2, 0.9, 0.1), atol=1.3e-4)


def half_seen():
  """Views of which some see little or nothing of some pixels."""
  seen = RNG.choice([0, 0.02, 0.5, 1], (B, H, W, 1))
  return (PROBS * seen).astype(np.float32)


def test_the_mean_of_views_weighs_what_they_see():
  probs = half_seen()
  found, seen = whole(consistency.mean_of_views)(probs, T)
  for b, i, j in np.ndindex(B, H, W):
    total = probs[b // T * T : b // T * T + T, i, j].astype(np.float64).sum(0)
    assert bool(seen[b, i, j, 0]) == (total.sum() > 0.1)
    np.testing.assert_allclose(found[b, i, j], total / max(total.sum(), 1e-3), atol=1e-5)


def test_the_surest_of_views_is_taken_as_it_is_and_the_first_of_equals():
  probs = half_seen()
  probs[1, 0, 0] = probs[0, 0, 0] = [0.2, 0.3, 0.5]
  probs[3, 1, 1] = probs[2, 1, 1] = 0
  found, seen = whole(consistency.surest_of_views)(probs, T)
  for b, i, j in np.ndindex(B, H, W):
    pair = probs[b // T * T : b // T * T + T, i, j].astype(np.float64)
    entropy = [1e5 if q.sum() < 0.1 else -(q * np.log((q + 1e-5) / (1 + 1e-5))).sum() for q in pair]
    np.testing.assert_allclose(found[b, i, j], pair[np.argmin(entropy)], atol=1e-6)
    assert bool(seen[b, i, j, 0]) == (pair.sum() > 0.1)


def test_the_prior_takes_a_first_share_whole_and_unseen_classes_decay():
  probs = PROBS.copy()
  probs[..., 2] = 0
  update = lambda prior: whole(consistency.updated_prior)(prior, probs, start=1e-3, momentum=0.9)
  one = update(np.full(C, 1e-3, np.float32))
  share = probs.astype(np.float64).mean((0, 1, 2))
  np.testing.assert_allclose(one, [share[0], share[1], 0.9e-3], rtol=1e-5)
  probs[..., 2] = 0.5
  two = update(one)
  np.testing.assert_allclose(two[2], 0.9 * 0.9e-3 + 0.1 * 0.5, rtol=1e-5)


@pytest.mark.parametrize('discount', [True, False])
def test_thresholds_and_labels_are_those_of_a_loop(discount):
  prior = np.array([0.3, 2e-4, 1e-3])
  kw = dict(upper=0.75, lower=0.3, scale=1e-3, discount=discount)
  probs = np.where(np.arange(C) == 2, 0.1 * PROBS, PROBS)
  probs[0, ..., 1] = 0  # never the likeliest in the first view
  padded = np.zeros((B, H, W), bool)
  padded[1, :2] = True
  least = whole(consistency.thresholds)(probs, jnp.asarray(prior), **kw)
  labels, confidence = whole(consistency.pseudo_labels)(probs, padded, least)
  for b in range(B):
    best = probs[b].argmax(-1)
    for c in range(C):
      peak = max([probs[b, i, j, c] for i, j in zip(*np.nonzero(best == c), strict=True)] or [0])
      factor = 1 - np.exp(-prior[c] / 1e-3) if discount else 1
      np.testing.assert_allclose(least[b, c], max(0.3, 0.75 * factor * peak), rtol=1e-5)
    for i, j in np.ndindex(H, W):
      k = probs[b, i, j].max()
      keep = k > least[b, best[i, j]] and not padded[b, i, j]
      assert labels[b, i, j] == (best[i, j] if keep else -1)
      assert confidence[b, i, j] == np.float32(k)
  assert 0 < np.mean(labels >= 0) < 1


def test_a_pixel_at_its_threshold_is_not_kept():
  probs = np.full((1, 1, 1, 2), 0.5, np.float32)
  labels, _ = whole(consistency.pseudo_labels)(
    probs, np.zeros((1, 1, 1), bool), jnp.full((1, 2), 0.5)
  )
  assert labels.item() == -1


def test_losses_are_minus_the_log_and_have_no_floor():
  labels = RNG.integers(-1, C, (B, H, W))
  logits = LOGITS.copy()
  logits[0, 0, 0], labels[0, 0, 0] = [200, 0, 0], 1  # beyond what a floor of 1e-7 would say
  prior = np.array([0.5, -0.1, 0.01])
  found = whole(consistency.pixel_losses)(logits, labels)
  focal = whole(consistency.focal_losses)(logits, labels, prior, power=3)
  for place in np.ndindex(B, H, W):
    x, y = logits[place].astype(np.float64), labels[place]
    want = 0 if y < 0 else np.log(np.exp(x - x.max()).sum()) + x.max() - x[y]
    weight = (1 - max(prior[y], 0)) ** 3
    np.testing.assert_allclose(found[place], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(focal[place], weight * want, rtol=1e-5, atol=1e-6)


def test_ignored_pixels_have_no_gradient():
  labels = np.full((B, H, W), -1)
  slope = jax.grad(lambda x: jnp.sum(whole(consistency.pixel_losses)(x, labels)))(LOGITS)
  assert not np.any(slope)


def test_the_published_confidence_is_what_broadcasting_makes_of_it():
  losses, confidence = RNG.random((B, H, W)), RNG.random((B, H, W))
  published = np.mean(losses * confidence[:, None])  # [B, B, H, W]
  ours = jnp.mean(losses * whole(consistency.averaged_confidence)(jnp.asarray(confidence)))
  np.testing.assert_allclose(ours, published, rtol=1e-5)
  pairs = whole(consistency.averaged_confidence)(jnp.asarray(confidence), 2)
  np.testing.assert_allclose(pairs[2], confidence[2:].mean(0), rtol=1e-5)
  np.testing.assert_array_equal(pairs[2], pairs[3])
