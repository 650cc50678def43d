"""Batches are a pure function of seed, step and host; every record is read once an epoch."""

import collections
import itertools
import multiprocessing
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from car_jax.data import compact, pipeline
from car_jax.data.sources import DataInfo, Source, Stream
from car_jax.errors import UserError

READERS = 3


class Records(Source):
  """Ten images whose first pixel is their number; record i has 1 + i % 3 readers who say j."""

  def __init__(self, count=10, sizes=(8,)):
    self.count, self.sides = count, sizes

  def __len__(self):
    return self.count

  def __getitem__(self, i):
    size = self.sides[i % len(self.sides)]
    image = np.random.default_rng(i).integers(0, 256, (size, size, 1)).astype(np.uint8)
    image[0, 0] = i
    labels = np.stack([np.full((size, size), j, np.uint8) for j in range(1 + i % READERS)])
    return {'image': image, 'labels': labels, 'id': f'id{i}', 'group': f'g{i // 2}'}


INFO = DataInfo('test', 3, ('a', 'b', 'c'), ((0, 0, 0),) * 3, READERS)
CONFIG = dict(batch=4, threads=1)


def train(count, source=None, config=CONFIG, **kw):
  options = dict(seed=5) | kw
  source = Records() if source is None else source
  batches = pipeline.train_batches(source, INFO, config, **options)
  return [*map(compact.expanded, itertools.islice(batches, count))]


def ids(batches):
  return [list(b['id']) for b in batches]


def same(a, b):
  assert len(a) == len(b)
  for x, y in zip(a, b, strict=True):
    assert x.keys() == y.keys()
    for key in x:
      np.testing.assert_array_equal(x[key], y[key])


def test_worker_processes_make_the_batches_of_threads_and_their_errors():
  workers = CONFIG | dict(workers=2)
  same(train(5), train(5, config=workers))
  with pytest.raises(UserError, match='images of one batch differ in size'):
    train(2, Records(sizes=(8, 9)), config=CONFIG | dict(workers=1))


def test_a_worker_that_is_killed_is_one_message():
  batches = pipeline.train_batches(Records(), INFO, CONFIG | dict(workers=1), seed=5)
  next(batches)
  before = multiprocessing.active_children()
  assert before
  for worker in before:
    os.kill(worker.pid, signal.SIGKILL)
  with pytest.raises(UserError, match=r'ended from outside.*\n.*fewer .*--config.data.workers=1'):
    [*itertools.islice(batches, 1000)]


@pytest.mark.parametrize(
  ('images', 'mend'), [(0, 'choose another split'), (3, 'config.data.batch=3 or less')]
)
def test_what_mends_a_split_smaller_than_a_batch(images, mend):
  with pytest.raises(UserError, match=rf'{images} images, fewer than a batch of 4\n.*{mend}'):
    train(1, Records(images))


ORPHANS = """
import multiprocessing, os
from tests.data import test_pipeline as own
batches = own.pipeline.train_batches(own.Records(), own.INFO, dict(batch=4, workers=2), seed=0)
next(batches)
print(*(p.pid for p in multiprocessing.active_children()), flush=True)
os._exit(1)
"""


def lives(process):
  try:
    return 'State:\tZ' not in pathlib.Path(f'/proc/{process}/status').read_text()
  except FileNotFoundError:
    return False


def test_workers_end_with_who_has_started_them(tmp_path):
  """Also where that ends at once, as after the failure of another process."""
  (tmp_path / 'orphans.py').write_text(
    f'if __name__ == "__main__":\n{textwrap.indent(ORPHANS, "  ")}'
  )
  command = [sys.executable, str(tmp_path / 'orphans.py')]
  env = os.environ | {'PYTHONPATH': os.getcwd()}
  with (tmp_path / 'out').open('w+') as out:  # a pipe would stay open as long as they live
    assert subprocess.run(command, env=env, stdout=out, timeout=120).returncode == 1
    out.seek(0)
    workers = [int(word) for word in out.read().split()]
  assert len(workers) == 2
  last = time.monotonic() + 20
  while left := [w for w in workers if lives(w)]:
    assert time.monotonic() < last, left
    time.sleep(0.1)


def test_the_keys_of_a_training_batch():
  (batch,) = train(1)
  assert batch['image'].shape == (4, 8, 8, 3)
  assert batch['image'].dtype == np.float32
  assert -1 <= batch['image'].min() < batch['image'].max() <= 1
  assert batch['label'].shape == (4, 8, 8)
  assert batch['labels'].shape == (4, READERS, 8, 8)
  assert batch['label'].dtype == batch['labels'].dtype == np.int32
  assert batch['label_weight'].dtype == np.float32
  assert batch['example'].dtype == np.uint32
  assert batch['valid'].all()
  assert batch['group'][0] == f'g{int(batch["id"][0][2:]) // 2}'


def test_the_seed_and_the_step_decide_everything_and_threads_nothing():
  same(train(5), train(5))
  same(train(5), train(5, config=CONFIG | dict(threads=3)))
  assert ids(train(5)) != ids(train(5, seed=6))


@pytest.mark.parametrize('start', [1, 2, 3])
def test_starting_at_a_step_is_what_an_unbroken_run_would_see(start):
  config = CONFIG | dict(mirror=True, rot90=True)
  same(train(6, config=config)[start:], train(6 - start, config=config, start_step=start))


@pytest.mark.parametrize('start', [0, 3])
def test_the_batches_of_two_hosts_are_the_rows_of_one(start):
  config = CONFIG | dict(mirror=True, rot90=True)
  halves = [train(4, config=config, start_step=start, host=h, hosts=2) for h in (0, 1)]
  together = [
    {key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*halves, strict=True)
  ]
  same(together, train(4, config=config, start_step=start))


def test_an_epoch_reads_each_record_at_most_once_and_the_next_one_in_another_order():
  epochs = [[*itertools.chain(*ids(train(2, start_step=2 * e)))] for e in range(12)]
  assert all(len(set(epoch)) == 8 for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 12
  read = collections.Counter(itertools.chain(*epochs))
  assert len(read) == 10  # what an epoch leaves out, others read
  assert pipeline.steps_per_epoch(10, 4) == 2


def test_readers_are_drawn_uniformly_and_afresh():
  drawn = collections.defaultdict(collections.Counter)
  for batch in train(500):
    for name, label in zip(batch['id'], batch['label'][:, 0, 0], strict=True):
      drawn[name][int(label)] += 1
  for name, counts in drawn.items():
    readers = 1 + int(name[2:]) % READERS
    total = sum(counts.values())
    assert set(counts) == set(range(readers))
    for count in counts.values():
      assert abs(count / total - 1 / readers) < 5 * np.sqrt(0.25 / total)


def test_absent_readers_weigh_nothing():
  for batch in train(3):
    for name, weight, labels in zip(
      batch['id'], batch['label_weight'], batch['labels'], strict=True
    ):
      readers = 1 + int(name[2:]) % READERS
      np.testing.assert_allclose(weight, [1 / readers] * readers + [0] * (READERS - readers))
      assert labels[:readers, 0, 0].tolist() == list(range(readers))


def test_the_images_transforms_and_labels_belong_together():
  class Marked(Records):
    def __getitem__(self, i):
      record = super().__getitem__(i)
      return record | {'labels': record['image'][None, ..., 0] // 86}

  config = CONFIG | dict(size=6, mirror=True, rot90=True)
  seen = set()
  for batch in train(8, Marked(), config):
    grey = np.round((batch['image'][..., 0] + 1) * 127.5).astype(int)
    np.testing.assert_array_equal(grey // 86, batch['label'])
    assert batch['image'].shape == (4, 6, 6, 3)
    seen |= {(n, g.tobytes()) for n, g in zip(batch['id'], grey, strict=True)}
  assert len(seen) > 10  # the same image came in several orientations


def evaluate(source=None, config=CONFIG, **kw):
  return [*map(compact.expanded, pipeline.eval_batches(source or Records(), INFO, config, **kw))]


def test_evaluation_reads_every_record_once_in_order_and_marks_the_padding():
  batches = evaluate(config=CONFIG | dict(mirror=True, rot90=True))
  valid = np.concatenate([b['valid'] for b in batches])
  names = np.concatenate([b['id'] for b in batches])
  assert len(valid) == 12
  assert names[valid].tolist() == [f'id{i}' for i in range(10)]
  assert valid.tolist() == [True] * 10 + [False] * 2
  assert all('label' not in b for b in batches)
  whole = np.concatenate([b['image'] for b in batches])[valid]
  for i in range(10):  # no augmentation
    np.testing.assert_allclose(
      whole[i, ..., 0], Records()[i]['image'][..., 0] / 127.5 - 1, atol=1e-6
    )


def test_an_examples_seed_is_its_ids_whatever_the_batch():
  by_id = [
    {
      n: e
      for b in evaluate(config=dict(batch=size))
      for n, e in zip(b['id'], b['example'], strict=True)
    }
    for size in (3, 10)
  ]
  assert by_id[0] == by_id[1]
  assert len(set(by_id[0].values())) == 10


def test_an_evaluation_batch_of_its_own():
  assert [len(b['valid']) for b in evaluate(config=CONFIG | dict(eval_batch=5))] == [5, 5]
  assert [len(b['valid']) for b in evaluate(Records(3), CONFIG)] == [4]


def test_hosts_evaluate_disjoint_rows_and_as_many_batches():
  hosts = [evaluate(host=h, hosts=2) for h in (0, 1)]
  assert len(hosts[0]) == len(hosts[1]) == 3
  names = [n for batches in hosts for b in batches for n in b['id'][b['valid']]]
  assert sorted(names) == sorted(f'id{i}' for i in range(10))


def test_images_of_two_sizes_need_a_crop():
  with pytest.raises(UserError) as e:
    train(1, Records(sizes=(8, 10)))
  first, fix = str(e.value).splitlines()
  assert re.search(r'id\d is \((8, 8|10, 10)\), id\d is \((8, 8|10, 10)\)', first)
  assert 'config.data.size' in fix
  assert train(1, Records(sizes=(8, 10)), CONFIG | dict(size=8))[0]['image'].shape == (4, 8, 8, 3)


def test_images_fitted_to_one_size_with_labels_of_two():
  batches = evaluate(Records(sizes=(8, 10)), CONFIG | dict(fit=(8, 8)))
  assert {b['labels'].shape[-1] for b in batches} == {8, 10}


def of_sides(*sides):
  return Records(len(sides), sides)


@pytest.mark.parametrize(
  ('sides', 'batch', 'devices', 'want'),
  [
    ((8,) * 5, 4, 1, [(8, 4), (8, 4)]),
    ((8, 8, 8, 10, 10), 3, 1, [(8, 3), (10, 3)]),  # one row in six is padding
    ((8, 10, 8, 10, 12), 4, 1, [(8, 1), (10, 1), (8, 1), (10, 1), (12, 1)]),
    ((8, 10, 8, 10, 12), 4, 2, [(8, 2), (10, 2), (8, 2), (10, 2), (12, 2)]),
  ],
)
def test_evaluation_takes_images_of_several_sizes_in_their_order(sides, batch, devices, want):
  config = CONFIG | dict(eval_batch=batch)
  batches = evaluate(of_sides(*sides), config, devices=devices)
  assert [(b['image'].shape[1], len(b['image'])) for b in batches] == want
  names = [n for b in batches for n in b['id'][b['valid']]]
  assert names == [f'id{i}' for i in range(len(sides))]
  if devices == 2:
    parts = [evaluate(of_sides(*sides), config, devices=2, host=h, hosts=2) for h in (0, 1)]
    for whole, *halves in zip(batches, *parts, strict=True):
      joined = np.concatenate([b['valid'] for b in halves])
      np.testing.assert_array_equal(whole['valid'], joined)
      np.testing.assert_array_equal(whole['image'], np.concatenate([b['image'] for b in halves]))


def test_evaluation_sees_whole_images_unless_the_config_says_otherwise():
  config = CONFIG | dict(size=6, crop='random')
  assert evaluate(config=config)[0]['image'].shape[1:3] == Records()[0]['image'].shape[:2]
  assert pipeline.cut(of_sides(8, 10, 6), config) == ''
  config |= dict(eval_size=8)
  assert {b['image'].shape[1] for b in evaluate(of_sides(8, 10), config)} == {8}
  assert re.match(r'.* 8x8 pixels of 1 of 2 images .*10x10', pipeline.cut(of_sides(8, 10), config))
  assert pipeline.cut(of_sides(8, 8), config) == ''
  with pytest.raises(UserError, match=r'id1 is 6x6, smaller than config\.data\.eval_size 8\n.*=6'):
    pipeline.cut(of_sides(8, 6), config)
  assert '1 of 2' in pipeline.cut(of_sides(10, 6), config | dict(pad=True))


def test_a_crop_larger_than_an_image_names_it():
  with pytest.raises(UserError, match=r'id\d is 8x8, smaller than config\.data\.size 9\n.*=8'):
    train(1, config=CONFIG | dict(size=9))


def test_too_few_records_for_a_batch():
  with pytest.raises(UserError, match=r'has 3 images, fewer than a batch of 4\n.*batch=3'):
    train(1, Records(3))


def test_a_batch_that_the_hosts_cannot_share():
  with pytest.raises(UserError, match='a batch of 4 cannot be shared by 3'):
    train(1, hosts=3)


def test_an_error_of_the_source_reaches_the_user():
  class Broken(Records):
    def __getitem__(self, i):
      raise UserError('the folder is damaged')

  with pytest.raises(UserError, match='the folder is damaged'):
    train(1, Broken())


def test_a_source_may_make_its_own_batches():
  class Own(Stream):
    def __len__(self):
      return 1

    def train_batches(self, **kw):
      yield kw

  kw = dict(seed=5, start_step=4, host=1, hosts=2)
  (batch,) = pipeline.train_batches(Own(), INFO, CONFIG, **kw)
  assert batch == kw


@pytest.mark.parametrize('threads', [0, 1, 2])
def test_a_closed_stream_leaves_no_thread(threads):
  before = set(threading.enumerate())
  config = CONFIG | dict(threads=threads)
  stream = pipeline.train_batches(Records(), INFO, config, seed=0)
  next(stream)
  stream.close()
  limit = time.monotonic() + 10
  while (left := set(threading.enumerate()) - before) and time.monotonic() < limit:
    time.sleep(0.01)
  assert not left
