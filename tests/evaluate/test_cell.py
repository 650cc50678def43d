"""Cells of sums: adding, splitting, saving and resampling them change no score."""

import dataclasses

import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.evaluate import cell
from car_jax.evaluate.cell import Cell
from car_jax.metrics.base import About, Metric, PerImage, Traits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share(Metric):
  """Right pixels among all: a score of sums."""

  about = About('share', 'high', 'Right pixels among all.')

  def compute(self, total):
    return float(total['right'] / total['all']) if total['all'] else float('nan')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size(PerImage):
  about = About('size', 'low', 'Pixels of an image.')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coarse(Share):
  """The same, of which images keep a tenth less than what is counted together."""

  def kept(self, state):
    return {k: v for k, v in state.items() if k != 'right'} | {'near': state['right'] * 0.9}, {
      'right': state['right'].sum()
    }

  def total(self, rows, whole):
    return dict(right=whole.get('right', rows['near']), all=rows['all'])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Median(Metric):
  """Of the images' shares: no sum of theirs."""

  of_rows = True
  about = About('median', 'high', 'Median share of right pixels.')

  def compute(self, total):
    share = total['right'] / total['all']
    of = lambda times: np.median(np.repeat(share, times.astype(int)))
    return np.apply_along_axis(of, -1, total['times'])


SHARE, SIZE, COARSE = Share(name='share'), Size(name='size'), Coarse(name='coarse')
ALL = (SHARE, SIZE, COARSE)


def states(rng, images):
  pixels = rng.integers(1, 50, images).astype(np.int32)
  right = rng.integers(0, pixels + 1).astype(np.int32)
  share = {'right': right, 'all': pixels}
  size = {'sum': pixels.astype(np.float32), 'images': np.ones(images, np.int32)}
  return share, size, share


def filled(parts, images=12, groups=None, seed=0):
  made = states(np.random.default_rng(seed), images)
  ids = [f'i{k}' for k in range(images)]
  groups = groups or [''] * images
  out = Cell()
  for rows in np.array_split(np.arange(images), parts):
    part = [{k: v[rows] for k, v in s.items()} for s in made]
    out.add(ALL, part, np.array(ids)[rows], np.array(groups)[rows])
  return out, made


def same(one, other):
  for name, value in one.items():
    assert dataclasses.astuple(value) == pytest.approx(
      dataclasses.astuple(other[name]), nan_ok=True
    )


@pytest.mark.parametrize('parts', [1, 5])
def test_scores_are_those_of_all_images_however_they_came(parts):
  c, (share, size, _) = filled(parts)
  assert c.value(SHARE) == pytest.approx(share['right'].sum() / share['all'].sum())
  assert c.value(SIZE) == pytest.approx(size['sum'].mean())
  np.testing.assert_allclose(c.values(SIZE), size['sum'])
  assert c.values(SHARE) is None
  assert len(c.sizes) == parts
  same(c.estimates(ALL, resamples=50), filled(1)[0].estimates(ALL, resamples=50))


MEDIAN = Median(name='median')


def medians(parts=1, images=12, groups=None, seed=0):
  """A cell with the median alone, and the images' shares."""
  (share, _, _), out = states(np.random.default_rng(seed), images), Cell()
  for rows in np.array_split(np.random.default_rng(parts).permutation(images), parts):
    of = [groups[k] for k in rows] if groups else [''] * len(rows)
    part = {k: v[rows] for k, v in share.items()}
    out.add([MEDIAN], [part], np.array([f'i{k:02}' for k in range(images)])[rows], of)
  return out, share['right'] / share['all']


def test_a_score_of_rows_is_of_all_images_however_they_came(tmp_path):
  one, share = medians()
  several, _ = medians(parts=5)
  assert one.value(MEDIAN) == pytest.approx(np.median(share))
  part = [int(one.ids[k][1:]) for k in (2, 3)]
  assert MEDIAN.compute(one.total(MEDIAN, np.array([2, 3]))) == np.median(share[part])
  first, second = (c.estimates([MEDIAN], resamples=60)['median'] for c in (one, several))
  assert dataclasses.astuple(first) == pytest.approx(dataclasses.astuple(second))
  assert first.low < first.value < first.high
  several.save(tmp_path / 'a.npz', {})
  again, _ = cell.load(tmp_path / 'a.npz')
  other, more = medians(seed=1)
  both = cell.merged([again, other], [MEDIAN])
  assert both.value(MEDIAN) == pytest.approx(np.median([*share, *more]))


def test_rows_of_a_group_are_drawn_together():
  groups = ['a'] * 6 + ['b'] * 3 + ['c'] * 3
  c, share = medians(groups=groups)
  draws = c.draws([MEDIAN], resamples=50, seed=2)['median']
  times = np.random.default_rng(2).multinomial(3, np.full(3, 1 / 3), 50)
  want = [np.median(np.repeat(share, np.repeat(n, [6, 3, 3]))) for n in times]
  np.testing.assert_allclose(draws, want)
  alone, _ = medians(images=1)
  e = alone.estimates([MEDIAN], resamples=10)['median']
  assert np.isfinite(e.value)
  assert np.isnan([e.low, e.high]).all()


def test_an_interval_holds_most_of_what_other_images_would_show():
  inside = 0
  for seed in range(60):
    c, _ = filled(1, images=40, seed=seed)
    e = c.estimates([SHARE], resamples=200, seed=seed)['share']
    inside += e.low <= 0.5 <= e.high  # right pixels are drawn evenly from 0 to all
  assert inside >= 50


def test_what_images_keep_coarsely_shifts_the_interval_by_what_is_lost():
  c, _ = filled(3)
  fine, coarse = (c.estimates([m], resamples=100)[m.name] for m in (SHARE, COARSE))
  assert coarse.value == fine.value
  lost = 0.1 * fine.value
  width = 0.9 * (fine.high - fine.low)
  if lost > cell.SHIFT:
    assert np.isnan(coarse.low)
  else:
    assert coarse.high - coarse.low == pytest.approx(width)


@pytest.mark.parametrize('groups', [['p'] * 4, None])
def test_one_group_or_image_has_a_value_and_no_interval(groups):
  c, _ = filled(1, images=4 if groups else 1, groups=groups)
  for e in c.estimates(ALL, resamples=20).values():
    assert np.isfinite(e.value)
    assert np.isnan([e.low, e.high]).all()


def test_a_score_that_one_image_decides_has_no_interval():
  c, made = filled(1, images=3)
  for state in (made[0], made[2]):
    state['right'][1:], state['all'][1:] = 0, 0
  one = Cell()
  one.add(ALL, made, [*'abc'], [''] * 3)
  e = one.estimates([SHARE], resamples=50)['share']
  assert np.isfinite(e.value)
  assert np.isnan(e.low)
  assert c.ids


def test_whole_groups_are_drawn_again():
  """Each image ten times, as slices of a patient, tells no more than it does once."""
  made = states(np.random.default_rng(0), 8)
  one, ten = Cell(), Cell()
  one.add(ALL, made, [f'{i}' for i in range(8)], [''] * 8)
  often = [{k: np.repeat(v, 10) for k, v in s.items()} for s in made]
  ten.add(ALL, often, [f'{i}' for i in range(80)], [f'p{i // 10}' for i in range(80)])
  single, grouped = (c.estimates([SHARE], resamples=50)['share'] for c in (one, ten))
  assert (grouped.low, grouped.high) == pytest.approx((single.low, single.high))


def test_images_that_do_not_count_are_skipped_by_pooled_scores():
  c, _ = filled(1)
  counted = np.arange(12) > 2
  e = c.estimates([SHARE], resamples=20, counted=counted)['share']
  assert (e.images, e.skipped) == (9, 3)


def test_cells_survive_their_files_and_merge(tmp_path):
  c, _ = filled(2)
  c.save(tmp_path / 'a.npz', dict(mark=1))
  again, about = cell.load(tmp_path / 'a.npz')
  assert about == dict(mark=1)
  same(again.estimates(ALL, resamples=20), c.estimates(ALL, resamples=20))
  both = cell.merged([c, filled(1, seed=1)[0]], ALL)
  totals = [x.total(SHARE) for x in (c, filled(1, seed=1)[0])]
  want = sum(t['right'] for t in totals) / sum(t['all'] for t in totals)
  assert both.value(SHARE) == both.value(COARSE) == pytest.approx(want)
  with pytest.raises(ValueError, match='kinds of predictions differ'):
    cell.merged([c, Cell(Traits(logits=True))], ALL)


def test_a_damaged_file_is_one_message_and_another_version_is_counted_again(tmp_path):
  c, _ = filled(1)
  path = tmp_path / 'a.npz'
  c.save(path, {})
  path.write_bytes(path.read_bytes()[:-40])
  with pytest.raises(UserError, match='delete it'):
    cell.load(path)
  np.savez(path, told=np.array('{"format": 3}'))
  assert cell.load(path)[1] == {}


def test_a_difference_on_the_same_images_is_surer_than_two_intervals():
  c, made = filled(1, images=60)
  worse = [dict(s) for s in made]
  for state in (worse[0], worse[2]):
    state['right'] = np.maximum(state['right'] - 1, 0)
  other = Cell()
  other.add(ALL, worse, c.ids, c.groups)
  gap = cell.difference(c, other, SHARE, resamples=200)
  one, two = (x.estimates([SHARE], resamples=200)['share'] for x in (c, other))
  assert gap.value == pytest.approx(one.value - two.value)
  assert gap.low > 0  # though the intervals overlap
  assert one.low < two.high
  even = cell.difference(c, c, SIZE, resamples=50)
  assert (even.value, even.low, even.high) == (0, 0, 0)


def test_a_difference_says_nothing_of_what_is_kept_too_coarsely():
  made, (share, size, _) = filled(1, images=60)
  c, other = Cell(), Cell()
  for into, right in ((c, share['all']), (other, 0 * share['all'])):
    counted = share | {'right': right}
    into.add(ALL, (counted, size, counted), made.ids, made.groups)
  fine, coarse = (cell.difference(c, other, m, resamples=50) for m in (SHARE, COARSE))
  assert (fine.low, fine.value, fine.high) == (1, 1, 1)
  assert coarse.value == pytest.approx(fine.value)
  assert np.isnan([coarse.low, coarse.high]).all()  # a tenth is missing


def test_draws_are_of_all_images_that_were_added():
  """They are kept for the next who asks, until there are more images."""
  c, _ = medians()
  how = dict(resamples=20, seed=1)
  first, subset = c.draws([MEDIAN], **how), c.draws([MEDIAN], **how, part=np.array([0, 1, 2]))
  assert c.draws([MEDIAN], **how)['median'] is first['median']
  assert not np.array_equal(subset['median'], first['median'])
  more, _ = medians(images=5, seed=1)
  kept = more.rows[MEDIAN.source_name]
  c.add([MEDIAN], [kept], [f'j{k}' for k in range(5)], [''] * 5)
  alone = cell.merged([medians()[0], more], [MEDIAN])
  alone.ids = c.ids
  np.testing.assert_array_equal(
    c.draws([MEDIAN], **how)['median'], alone.draws([MEDIAN], **how)['median']
  )
