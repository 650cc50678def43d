"""What the folder of predictions holds: nothing of others is deleted, nothing old is left."""

import json

import pytest
from PIL import Image

from car_jax.commands import predict
from car_jax.predict.run import Run
from tests.predict.models import saved, scene, write_picture


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return str(saved(tmp_path_factory.mktemp('run'), 'supervised'))


@pytest.fixture
def place(tmp_path):
  """A folder of two pictures."""
  for k, name in enumerate('ab'):
    write_picture(tmp_path / 'in' / f'{name}.png', scene(32, 32, k))
  return tmp_path / 'in'


def files(folder):
  return {p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file()}


def write_pages(path, count):
  first, *others = [Image.fromarray(scene(32, 32, k)) for k in range(count)]
  first.save(path, save_all=True, append_images=others)


def stems(out, kind):
  return {p.stem for p in (out / kind).iterdir()}


@pytest.mark.parametrize('text', ['{"editor.fontSize": 12}', '{"format": 1', '[]', '\0\xff'])
def test_a_folder_of_other_files_is_never_replaced(run, place, tmp_path, capsys, text):
  mine = tmp_path / 'project'
  for name in ('thesis.txt', 'src/a.py', 'src/x.1.part'):
    (mine / name).parent.mkdir(parents=True, exist_ok=True)
    (mine / name).write_text(name)
  (mine / 'settings.json').write_text(text, encoding='latin-1')
  before = files(mine)
  for more in ((), ('--new',)):
    assert predict.main([run, str(place), '--out', str(mine), *more]) == 2
    printed = capsys.readouterr().err
    assert f'{mine} holds other files (settings.json says nothing of' in printed
    assert 'is not replaced' in printed
    assert '--new' not in printed
  assert files(mine) == before


def test_new_deletes_predictions_alone(run, place, tmp_path):
  out, args = tmp_path / 'o', [run, str(place), '--out', str(tmp_path / 'o'), '--save']
  assert predict.main([*args, 'masks,uncertainty']) == 0
  kept = {'notes.txt', 'scores/report.html', 'scores/x.1.part'}
  for name in kept:
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text(name)
  left = {'masks/x.png.12.part', 'done/x.json.12.part', 'index.html.12.part'}
  for name in left:
    (out / name).write_text('of a process that was killed')
  (place / 'b.png').unlink()
  assert predict.main([*args, 'masks', '--new']) == 0
  assert kept < files(out)
  assert not left & files(out)
  assert stems(out, 'masks') == {'a'}
  assert not (out / 'uncertainty').exists()


def test_where_nothing_was_predicted_other_settings_are_taken(run, place, tmp_path, capsys):
  out, args = tmp_path / 'o', [run, str(place), '--out', str(tmp_path / 'o'), '--save', 'masks']
  for name in 'ab':
    (place / f'{name}.png').rename(place / f'{name}.whole')
    (place / f'{name}.png').write_bytes((place / f'{name}.whole').read_bytes()[:200])
  assert predict.main([*args, '--range', '1%,99%']) == 2
  assert 'nothing was predicted' in capsys.readouterr().err
  assert (out / 'settings.json').exists()
  (out / 'masks').mkdir()
  (out / 'masks' / 'c.png').touch()  # of an item that was being written
  for name in 'ab':
    (place / f'{name}.whole').rename(place / f'{name}.png')
  assert predict.main([*args, '--range', '0%,100%']) == 0
  assert json.loads((out / 'settings.json').read_text())['range'] == '0%,100%'
  assert stems(out, 'masks') == {'a', 'b'}
  assert predict.main([*args, '--range', '1%,99%']) == 2  # by now there is something
  assert 'made with --range 0%,100%, not --range 1%,99%' in capsys.readouterr().err


def test_what_is_superseded_goes_with_its_record(run, place, tmp_path):
  out, args = tmp_path / 'o', [run, str(place), '--out', str(tmp_path / 'o')]
  write_pages(place / 'p.tif', 3)
  write_picture(tmp_path / 'else' / 'c.png', scene(32, 32, 5))
  assert predict.main(args) == 0
  assert predict.main([run, str(tmp_path / 'else'), *args[2:]]) == 0
  assert stems(out, 'samples') == {'a', 'b', 'c', 'p_1', 'p_2', 'p_3'}
  times = {name: (out / 'samples' / f'{name}.npz').stat().st_mtime_ns for name in 'bc'}
  write_picture(place / 'a.bmp', scene(32, 32, 3))
  write_pages(place / 'p.tif', 2)
  assert predict.main(args) == 0
  now = {'a_bmp', 'a_png', 'b', 'c', 'p_1', 'p_2'}
  for kind in ('masks', 'colours', 'samples', 'probabilities', 'probability_maps', 'uncertainty'):
    assert stems(out, kind) == now
  assert stems(out, 'done') == {'a_bmp', 'a_png', 'b', 'c', 'p'}
  for name, time in times.items():
    assert (out / 'samples' / f'{name}.npz').stat().st_mtime_ns == time
  (place / 'b.png').write_bytes(b'broken')
  assert predict.main(args) == 1
  assert stems(out, 'samples') == now - {'b'}
  recorded = [json.loads(path.read_text())['files'] for path in (out / 'done').iterdir()]
  tables = {'settings.json', 'predictions.csv', 'index.html'}
  written = {name for name in files(out) if not name.startswith('done/')}
  assert written == {name for made in recorded for name in made} | tables


def test_files_of_a_record_of_now_are_not_deleted_with_an_old_one(run, place, tmp_path):
  """Pages of p.tif and a picture p_2.png of another call have one name: the last has the file."""
  out, args = tmp_path / 'o', [run, '--out', str(tmp_path / 'o'), '--save', 'masks']
  write_pages(tmp_path / 'p.tif', 3)
  assert predict.main([*args, str(tmp_path / 'p.tif')]) == 0
  write_picture(tmp_path / 'p_2.png', scene(32, 32, 8))
  assert predict.main([*args, str(tmp_path / 'p_2.png')]) == 0
  write_pages(tmp_path / 'p.tif', 1)
  assert predict.main([*args, str(tmp_path / 'p.tif')]) == 0
  assert stems(out, 'masks') == {'p', 'p_2'}
  assert stems(out, 'done') == {'p', 'p_2'}


def test_a_name_that_another_file_of_the_call_had_is_free(run, place, tmp_path):
  """in/a.png alone is a; with a.png beside in/, that one is."""
  out, args = tmp_path / 'o', ['--out', str(tmp_path / 'o'), '--save', 'masks']
  assert predict.main([run, str(place), *args]) == 0
  write_picture(tmp_path / 'a.png', scene(32, 32, 6))
  assert predict.main([run, str(tmp_path), *args]) == 0
  assert {n for n in files(out) if n.startswith('masks')} == {
    f'masks/{name}.png' for name in ('a', 'in/a', 'in/b')
  }


def test_a_stop_while_old_files_are_deleted_is_gone_on_from(run, place, tmp_path, monkeypatch):
  out, args = tmp_path / 'o', [run, str(place), '--out', str(tmp_path / 'o'), '--save', 'masks']
  assert predict.main(args) == 0
  old = json.loads((out / 'done' / 'a.json').read_text())['files']
  write_picture(place / 'a.bmp', scene(32, 32, 3))
  with monkeypatch.context() as patch:
    patch.setattr(Run, '_parts', lambda self, todo: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
      predict.main(args)
  assert stems(out, 'done') == {'b'}
  (out / 'done' / 'a.json').write_text(
    json.dumps(dict(place=str(place / 'a.png'), source=0, files=old, images=[]))
  )  # as if killed before it was deleted
  assert predict.main(args) == 0
  assert stems(out, 'masks') == stems(out, 'done') == {'a_bmp', 'a_png', 'b'}


def test_a_file_with_too_long_a_name_is_named_and_the_rest_is_done(run, place, tmp_path, capsys):
  write_picture(place / f'{"x" * 240}.png', scene(32, 32, 3))
  assert predict.main([run, str(place), '--out', str(tmp_path / 'o')]) == 1
  assert 'its name is too long to call files after it' in capsys.readouterr().err
  assert stems(tmp_path / 'o', 'masks') == {'a', 'b'}
  (place / f'{"x" * 240}.png').rename(place / f'{"x" * 220}.png')
  assert predict.main([run, str(place), '--out', str(tmp_path / 'o')]) == 0


def test_settings_that_mean_the_same_go_into_one_folder(run, place, tmp_path, capsys):
  args = [run, str(place), '--out', str(tmp_path / 'o')]
  first = ('--save', 'uncertainty,masks', '--crop', '16', '--samples', '3')
  assert predict.main([*args, *first]) == 0
  capsys.readouterr()
  again = ('--save', 'masks,uncertainty', '--crop', '16,16', '--samples', '4')
  assert predict.main([*args, *again]) == 0
  assert '2 files were complete before' in capsys.readouterr().out
  assert predict.main([*args, '--save', 'masks', '--stride', '8,16', '--crop', '16']) == 2
  text = 'with --save masks,uncertainty no --stride, not --save masks --stride 8,16\n'
  assert text in capsys.readouterr().err
