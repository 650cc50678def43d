"""Counts of conformal losses against the sets themselves, pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from car_jax.metrics import conformal, onepass
from car_jax.metrics import conformal_counts as counts
from tests.whole import whole

RNG = np.random.default_rng(0)
B, N, C = 3, 60, 4
PROBS = RNG.dirichlet(np.ones(C), (B, N)).astype(np.float32)
LABELS = RNG.choice([0, 1, 2, 255], (B, N))
EDGES = np.float32([0, 0.1, 0.25, 0.5, 0.9])
SEEN = LABELS != 255
OWN = np.take_along_axis(PROBS, np.where(SEEN, LABELS, 0)[..., None], -1)[..., 0]
TOP = PROBS.argmax(-1) == LABELS


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 1, width=32), st.sampled_from([3, 50, 200]))
def test_a_bin_holds_what_is_at_least_its_edge(p, steps):
  for edges in (counts.GRID, (np.arange(steps + 1) / steps).astype(np.float32)):
    k = int(counts.bins(np.float32([p]), edges)[0])
    assert edges[k] <= np.float32(p)
    assert k == len(edges) - 1 or np.float32(p) < edges[k + 1]


def test_edges_are_their_own_bins():
  for edges in (counts.GRID, (np.arange(51) / 50).astype(np.float32)):
    np.testing.assert_array_equal(counts.bins(edges, edges), np.arange(len(edges)))


def test_label_counts_give_every_loss():
  found = whole(counts.image_label_counts)(PROBS, LABELS, edges=EDGES)
  assert found.sum() == SEEN.sum()
  for i in range(B):
    seen, y = SEEN[i], LABELS[i][SEEN[i]]
    for k, edge in enumerate(EDGES):
      bare = OWN[i][seen] >= edge
      met = bare | TOP[i][seen]
      assert counts.miscoverage(found[i])[k] == pytest.approx(1 - met.mean())
      assert counts.miscoverage(found[i], top=False)[k] == pytest.approx(1 - bare.mean())
      each = [np.mean(met[y == c]) for c in np.unique(y)]
      assert counts.balanced(found[i])[k] == pytest.approx(1 - np.mean(each))
      for c in np.unique(y):
        assert counts.class_fnr(found[i])[c, k] == pytest.approx(1 - bare[y == c].mean())
      said = np.asarray(counts.lac_sets(PROBS[i], edge))
      own = np.take_along_axis(said, np.where(seen, LABELS[i], 0)[:, None], 1)[seen]
      assert own.mean() == pytest.approx(met.mean())
  assert np.isnan(counts.class_fnr(found)[:, 3]).all()


def test_batches_and_void_images():
  whole_batch = whole(counts.image_label_counts)(PROBS, LABELS)
  parts = [whole(counts.image_label_counts)(PROBS[i : i + 1], LABELS[i : i + 1]) for i in range(B)]
  np.testing.assert_array_equal(np.concatenate(parts), whole_batch)
  void = whole(counts.image_label_counts)(PROBS, np.full_like(LABELS, 255))
  losses = counts.miscoverage(void)
  assert np.isnan(losses).all()
  total = conformal.add_up(losses)
  assert (total.images, total.left_out) == (0, B)
  assert conformal.choose(counts.GRID, total, 0.1).limited


def test_counts_by_a_pass_over_logits():
  """What `onepass` has at hand of each pixel is all that `label_counts` needs."""
  p = onepass.parts(np.log(PROBS[0]))
  lone = whole(counts.label_counts)(
    OWN[0],
    np.asarray(p.predicted) == LABELS[0],
    np.where(SEEN[0], LABELS[0], 0),
    SEEN[0],
    classes=C,
  )
  np.testing.assert_array_equal(lone, whole(counts.image_label_counts)(PROBS, LABELS)[0])


def test_aps_counts_are_those_of_its_sets():
  limits = np.float32([0, 0.3, 0.6, 0.95, 1])
  losses = counts.aps_losses(whole(counts.aps_counts)(PROBS, LABELS, limits))
  for k, limit in enumerate(limits[::-1]):
    said = np.asarray(counts.aps_sets(PROBS, limit))
    own = np.take_along_axis(said, np.where(SEEN, LABELS, 0)[..., None], -1)[..., 0]
    want = [1 - own[i][SEEN[i]].mean() for i in range(B)]
    np.testing.assert_allclose(losses[:, k], want, atol=1e-12)
  order = -np.sort(-PROBS, -1)
  size = 1 + np.sum(np.cumsum(order, -1)[..., :-1] <= 0.6, -1)
  np.testing.assert_array_equal(np.asarray(counts.aps_sets(PROBS, 0.6)).sum(-1), size)


def test_fdr_is_the_largest_from_its_edge_on():
  p, found = RNG.random((B, N)).astype(np.float32), RNG.random((B, N)) < 0.5
  both = np.stack([found, np.ones_like(found)], 1).astype(int)
  count = whole(counts.histogram)(p, both, EDGES)
  losses = counts.fdr(count[:, 0], count[:, 1])
  share = lambda i, t: np.mean(~found[i][p[i] >= t]) if (p[i] >= t).any() else 0
  for i in range(B):
    want = [max(share(i, t) for t in EDGES[k:]) for k in range(len(EDGES))]
    np.testing.assert_allclose(losses[i], want)
  total = conformal.add_up(losses[:, ::-1])
  assert conformal.choose(EDGES[::-1], total, 0.01, largest=np.inf).value == np.inf


@pytest.mark.parametrize('form', counts.FORMS)
def test_losses_of_several_readers(form):
  p = RNG.random((B, N)).astype(np.float32)
  marks = RNG.random((B, 5, N)) < 0.3
  marks[0, 1] = marks[2] = False
  weight = whole(counts.reader_weights)(marks, form)
  losses = counts.reader_losses(whole(counts.histogram)(p, weight, EDGES), form)
  for i, k in np.ndindex(B, len(EDGES)):
    missed = p[i] < EDGES[k]
    each = [missed[m].mean() if m.any() else np.nan for m in marks[i]]
    votes = marks[i].sum(0)
    want = dict(
      mean=np.nan_to_num(each).mean(),
      marking=np.nanmean(each) if votes.any() else np.nan,
      worst=np.nanmax(each) if votes.any() else np.nan,
      union=missed[votes > 0].mean() if votes.any() else np.nan,
      majority=missed[votes > 2].mean() if (votes > 2).any() else np.nan,
      share=np.average(missed, weights=votes) if votes.any() else np.nan,
    )
    assert losses[i, k] == pytest.approx(want[form], nan_ok=True)


def test_a_form_of_another_name_is_refused():
  with pytest.raises(ValueError, match="not 'median'"):
    counts.reader_weights(np.ones((1, 2, 3), bool), 'median')
  with pytest.raises(ValueError, match="not 'median'"):
    counts.reader_losses(np.ones((1, 2, 3)), 'median')


def test_images_that_are_not_covered_enough():
  missed = np.array([0.0, 0.1, 0.11, np.nan])
  np.testing.assert_array_equal(counts.uncovered(missed, 0.9), [0, 0, 1, np.nan])
