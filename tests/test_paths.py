"""Places that are named by texts, of this machine and in buckets."""

import datetime
import json
import pathlib
import subprocess
import sys

import fsspec
import numpy as np
import pytest

from car_jax import checkpoints, folders, lock, loop, paths, saved_steps, writers
from car_jax import config as configs
from car_jax.calibrate import files as calibrators
from car_jax.calibrate.base import Fit
from car_jax.calibrate.temperature import Temperature
from car_jax.commands import eval as evaluation
from car_jax.data import opening
from car_jax.datasets import prepare
from car_jax.errors import UserError
from car_jax.predictions.dataset import Dataset
from car_jax.reliability import command, study, study_options
from tests.bucket import OBJECTS, Bucket, bucket  # noqa: F401
from tests.reliability import runs
from tests.test_loop import config, recorded  # noqa: F401

pytestmark = pytest.mark.usefixtures('bucket')


def names(part):
  return [key for key in OBJECTS if part in key]


def test_texts_name_places():
  assert paths.of('runs/a') == pathlib.Path('runs/a')
  assert paths.of('file:///tmp/a%20b') == pathlib.Path('/tmp/a b')
  remote = paths.of('gs://bucket/runs/a')
  assert paths.is_remote(remote)
  assert str(remote / 'b') == 'gs://bucket/runs/a/b'
  assert paths.of(remote) is remote
  assert paths.absolute(remote) is remote
  assert not paths.is_remote(paths.of('a=b://c'))


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('gcs://bucket/a', r'nothing is read or written by gcs://\n.*: gs$'),
    (
      'ftp://host/a',
      r'nothing is read or written by ftp://\n  known: az, file, gs, s3',
    ),
    ('gs:///a', 'names no bucket'),
    ('file://host/a', 'on another machine'),
  ],
)
def test_places_that_are_none(text, message):
  with pytest.raises(UserError, match=message):
    paths.of(text)


def test_a_scheme_without_its_package_says_how_to_install_it(monkeypatch, capsys):
  def missing(name):
    raise ImportError('Install s3fs to access S3')

  monkeypatch.setattr(fsspec, 'get_filesystem_class', missing)
  arguments = ['--checkpoint', 'runs/none', '--out', 's3://bucket/report']
  assert evaluation.main(arguments) == 2  # before anything else is looked at
  assert "Install s3fs to access S3)\n  pip install 'car-jax[s3]'" in capsys.readouterr().err


def test_a_bucket_that_cannot_be_reached_is_one_message(monkeypatch, capsys):
  def refused(self, *_, **__):
    raise RuntimeError('401: no credentials')

  monkeypatch.setattr(Bucket, 'info', refused)
  assert evaluation.main(['--checkpoint', 'gs://other/run']) == 2
  assert 'gs://other/run cannot be reached (RuntimeError 401' in capsys.readouterr().err


def test_a_list_that_is_kept_would_miss_what_tensorstore_writes():
  paths.of('gs://bucket/a')
  assert fsspec.config.conf['gcs']['use_listings_cache'] is False


def test_no_checkpoints_where_orbax_writes_none(config, monkeypatch):  # noqa: F811
  monkeypatch.setattr(fsspec, 'get_filesystem_class', lambda name: Bucket)
  monkeypatch.setattr(paths, '_check_reached', lambda path: None)
  for use in (lambda at: loop.train(config, at), saved_steps.locate):
    with pytest.raises(UserError, match='local folders and gs:// alone'):
      use('s3://bucket/run')


def test_a_killed_run_in_a_bucket_goes_on_as_if_it_had_not_been(config, tmp_path):  # noqa: F811
  """Arrays go through tensorstore's own driver, all else through fsspec. What a killed run leaves:
  lines after the last checkpoint, and a checkpoint without its last file."""
  want = loop.train(config, tmp_path / 'run')
  config.steps, run = 4, paths.of('gs://bucket/runs/a')
  loop.train(config, 'gs://bucket/runs/a')
  assert saved_steps.locate(run)[1] == 4
  assert not names('/.lock')
  lines = (run / 'metrics.jsonl').read_text()
  (run / 'metrics.jsonl').write_text(lines + '{"step": 5, "loss/fine": 9}\n{"step"')
  for key in names('/checkpoints/4/'):
    if not key.endswith('4/commit_success.txt'):
      OBJECTS[key.replace('/4/', '/5/')] = OBJECTS[key]
  config.steps = 6
  state = loop.train(config, 'gs://bucket/runs/a')
  assert (state.step, state.total) == (want.step, want.total)
  rows = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
  keys = ('step', 'loss/fine', 'loss/odd')
  plain = lambda rows: [[row[k] for k in keys] for row in rows]
  assert plain(rows) == plain(recorded(tmp_path / 'run'))
  assert len(names('/runs/a/tensorboard/')) == 2
  kept = []
  for place in (tmp_path / 'run', run):
    folder, step = saved_steps.locate(place)
    with checkpoints.Checkpoints(folder) as saved:
      kept.append((step, saved.meta(step)['crc'], saved.steps()))
  assert kept[0] == kept[1]
  with pytest.raises(UserError, match='a bucket moves no folder aside'):
    loop.train(config, run, new=True)


def test_one_training_at_a_time_in_a_bucket(monkeypatch):
  run = paths.of('gs://bucket/runs/a')
  monkeypatch.setattr(lock, 'BEAT', 0.05)
  with lock.exclusive(run):
    (mine,) = names('/.lock')
    written = OBJECTS[mine].modified
    with (
      pytest.raises(UserError, match=r'trained in by process \d+ on .*since'),
      lock.exclusive(run),
    ):
      pass
    while OBJECTS[mine].modified == written:  # it is written again and again
      pass
    theirs = b'{"host": "b", "pid": 1, "since": "2026"}'
    OBJECTS[mine].seek(0)
    run.joinpath(lock.NAME).write_bytes(theirs)
  assert OBJECTS[mine].getvalue() == theirs  # what another has put there stays
  OBJECTS[mine].modified -= datetime.timedelta(seconds=lock.STALE + 1)
  with lock.exclusive(run):
    assert OBJECTS[mine].getvalue() != theirs
  assert not OBJECTS


def test_a_folder_is_whole_when_its_last_file_is_there(tmp_path, monkeypatch):
  report, put, left = paths.of('gs://bucket/report'), Bucket.put_file, [3]

  def failing(self, path, key, **kw):
    left[0] -= 1
    if not left[0]:
      raise ConnectionError('the line broke')
    put(self, path, key, **kw)

  def write(text, *more):
    with folders.replaced(report, 'results.json') as part:
      for name in ('results.json', 'a.txt', 'b/c.txt', 'd.txt', *more):
        (part / name).parent.mkdir(exist_ok=True)
        (part / name).write_text(text)

  write('old', 'gone.txt')
  monkeypatch.setattr(Bucket, 'put_file', failing)
  with pytest.raises(ConnectionError):
    write('new')
  assert not (report / 'results.json').exists()
  assert (report / 'a.txt').read_text() == 'new'
  write('newer')  # what was begun is ended
  assert {k: v.getvalue() for k, v in OBJECTS.items()} == {
    f'/bucket/report/{name}': b'newer' for name in ('results.json', 'a.txt', 'b/c.txt', 'd.txt')
  }
  paths.of('gs://bucket/other/x').write_text('')
  with pytest.raises(UserError, match=r'holds other files \(no results.json among them\)'):
    folders.check_replaceable(paths.of('gs://bucket/other'), 'results.json')


def test_a_file_appears_when_it_is_whole():
  place = paths.of('gs://bucket/a.txt')

  def interrupted():
    with folders.whole(place) as part:
      part.write_text('half')
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    interrupted()
  assert not OBJECTS
  with folders.whole(place) as part:
    part.write_text('all')
  assert place.read_text() == 'all'


def test_a_bucket_that_cannot_be_written_is_told_at_once(config, monkeypatch):  # noqa: F811
  def refused(self, *_, **__):
    raise RuntimeError('403: no permission')

  monkeypatch.setattr(Bucket, '_open', refused)
  with pytest.raises(UserError, match=r'gs://bucket/a cannot be written \(RuntimeError 403'):
    loop.train(config, 'gs://bucket/a')


def test_what_is_recorded_is_in_the_bucket_before_a_checkpoint_and_from_time_to_time(monkeypatch):
  lines = lambda: OBJECTS['/bucket/a/metrics.jsonl'].getvalue().splitlines()
  with writers.Writers(paths.of('gs://bucket/a'), True, 0, ('tensorboard',)) as out:
    out.scalars(1, {'loss': 1.0})
    assert not OBJECTS
    out.flush()
    assert lines() == [b'{"step": 1, "loss": 1.0}']
    assert len(names('/a/tensorboard/')) == 1
    monkeypatch.setattr(writers, 'EVERY', 0.0)
    out.scalars(2, {'loss': 2.0})
    assert len(lines()) == 2


def test_what_is_fetched_is_a_copy_that_follows_the_bucket(capsys):
  place = paths.of('gs://bucket/data')
  for name in ('a.txt', 'b/c.txt'):
    (place / name).write_text(name)
  copy = paths.fetched('gs://bucket/data')
  assert capsys.readouterr().out.startswith('fetched 2 file(s), 0.0 MB, of gs://bucket/data into ')
  assert paths.fetched(place) == copy
  assert not capsys.readouterr().out
  (place / 'a.txt').write_text('A.txt')  # of the same size
  (place / 'b/c.txt').unlink()
  (place / 'd.txt').write_text('d')
  paths.fetched(place)
  assert 'fetched 2 file(s)' in capsys.readouterr().out
  there = {p.relative_to(copy).as_posix(): p.read_text() for p in paths.files_below(copy)}
  there.pop(paths.INDEX)
  assert there == {'a.txt': 'A.txt', 'd.txt': 'd'}
  assert paths.fetched('gs://bucket/data/d.txt').read_text() == 'd'
  with pytest.raises(UserError, match='nothing is in gs://bucket/none'):
    paths.fetched('gs://bucket/none')


def test_a_calibrator_in_a_bucket():
  fit = Fit(Temperature(np.float32(1.5)), dict(classes=3))
  calibrators.save('gs://bucket/t.npz', fit)
  again = calibrators.load('gs://bucket/t.npz', classes=3)
  assert calibrators.digest(again.calibrator) == calibrators.digest(fit.calibrator)
  with pytest.raises(UserError, match='no calibrator gs://bucket/u.npz'):
    calibrators.load('gs://bucket/u.npz')


def test_data_prepared_in_a_bucket_are_those_of_this_machine(tmp_path, capsys):
  records = []
  for place in (str(tmp_path), 'gs://bucket/data'):
    name = runs.scenes(paths.of(place))
    source = opening.open_dataset(dict(name=name, data_dir=place)).split('test')
    records.append([source[i] for i in range(len(source))])
  assert len(records[0]) == len(records[1]) == 4
  for here, there in zip(*records, strict=True):
    assert here.keys() == there.keys()
    assert all(np.array_equal(here[k], there[k]) for k in here)
  assert capsys.readouterr().out.count('fetched') == 1
  with pytest.raises(
    UserError,
    match=r"'street_scene' is not prepared in gs://bucket(.|\n)*prepare street_scenes --data-dir gs://",
  ):
    opening.open_dataset(dict(name='street_scene', data_dir='gs://bucket/data'))
  options = ['--height', '32', '--count', '16', '--unknown', '1', '--part', 'test']
  options += ['--data-dir', 'gs://bucket/data']
  before = dict(OBJECTS)
  assert prepare.main(['street_scenes', *options]) == 0
  assert before == OBJECTS
  assert 'already prepared' in capsys.readouterr().out
  assert prepare.main(['street_scenes', *options, '--overwrite']) == 0
  assert before.keys() == OBJECTS.keys()
  assert before != OBJECTS


def scores(folder):
  content = json.loads((paths.of(folder) / 'results.json').read_text())
  return {s['name']: s['scores'] for s in content['subjects']}


def test_a_report_and_arrays_in_a_bucket(tmp_path):
  c = configs.load('tests/small.py:supervised')
  c.steps, c.evals, c.best = 1, {}, ''
  loop.train(c, 'gs://bucket/net')
  options = ["--config.report.metrics=('miou',)", '--config.report.split=test[:4]']
  for run, out in (('gs://bucket/net', []), (paths.fetched('gs://bucket/net'), ['--out'])):
    out += [str(tmp_path / 'report')] * len(out)
    assert evaluation.main([f'--checkpoint=net={run}', '--save=probabilities', *options, *out]) == 0
  assert scores('gs://bucket/net/report') == scores(tmp_path / 'report')
  for path in paths.files_below(tmp_path / 'arrays'):
    if path.suffix == '.npy':
      name = path.relative_to(tmp_path).as_posix()
      assert OBJECTS[f'/bucket/net/{name}'].getvalue() == path.read_bytes()
  read = [Dataset([('net', str(at))], '') for at in ('gs://bucket/net/arrays', tmp_path / 'arrays')]
  batches = [next(iter(one.batches(host=0, hosts=1, devices=1))) for one in read]
  assert {'labels', 'valid'} < batches[0].keys()
  assert all(np.array_equal(batches[0][k], batches[1][k]) for k in batches[1])


@pytest.mark.slow
def test_a_study_in_a_bucket_goes_on_where_it_was(tmp_path, monkeypatch):
  studied = []
  for place in (str(tmp_path), 'gs://bucket/all'):
    name = runs.scenes(paths.of(f'{place}/data'), unknown=0.0, part='all', count=8)
    net = runs.trained(paths.of(f'{place}/net'), 'segformer', f'{place}/data', name)
    c = study_options.defaults()
    c.update(runs.study(dict(net=net), f'{place}/data', dict(clear=name)))
    c.calibrators = dict(t='temperature')
    c.measures, c.guarantees, c.worst = ('miou',), {}, 1
    content, page = command.run(c, f'{place}/study', '')
    assert page.read_text().startswith('<!doctype html>')
    with monkeypatch.context() as m:
      m.setattr(study.count, 'cells', None)  # nothing is left to count
      again, _ = command.run(c, f'{place}/study', '')
    assert again['cells'] == content['cells']
    studied.append([cell['values'] for cell in content['cells']])
  assert studied[0] == studied[1]


def test_folders_that_two_processes_fill_at_once_are_two(tmp_path):
  gone = subprocess.Popen([sys.executable, '-c', ''])
  gone.wait()
  other = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)
  for pid in (gone.pid, other.pid):
    (tmp_path / f'out.{pid}.part').mkdir()
  with folders.replaced(tmp_path / 'out', 'made.json') as part:
    (part / 'made.json').write_text('ours')
    assert {p.name for p in tmp_path.iterdir()} == {part.name, f'out.{other.pid}.part'}
  assert (tmp_path / 'out' / 'made.json').read_text() == 'ours'
  other.communicate(b'\n')
