"""Models as folders for the hub: what is written is read, and nothing else is."""

import dataclasses
import json
import re
import shutil
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from car_jax import checkpoints, files, hub, init_from, model_card
from car_jax import config as configs
from car_jax.commands import eval as evaluation
from car_jax.commands import export, train, zoo
from car_jax.configs import smoke
from car_jax.errors import UserError
from car_jax.evaluate import checkpointed
from tests import small

CARD = model_card.Card('hf://OWNER/some', 'apache-2.0')
IMAGE = np.random.default_rng(1).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)


def written(c, folder):
  model = small.loaded(c)
  hub.save(model, folder, CARD.text)
  return model, checkpointed.load(folder)


@pytest.fixture
def folder(tmp_path):
  hub.save(small.loaded(small.get_config()), tmp_path / 'some', CARD.text)
  return tmp_path / 'some'


@pytest.mark.parametrize('variant', smoke.METHODS)
def test_arrays_come_back_to_the_bit(variant, tmp_path):
  model, back = written(smoke.get_config(variant), tmp_path / 'some')
  unused = model.method.training_parts
  theirs = dict(checkpoints.leaves(back.state))
  for name, array in checkpoints.leaves(model.state):
    if name.partition('/')[0] not in unused:
      np.testing.assert_array_equal(theirs[name], array, strict=True, err_msg=name)
  assert (back.step, back.size) == (model.step, model.size)
  plain = lambda one: (configs.to_json(one.config), json.dumps(dataclasses.asdict(one.info)))
  assert plain(back) == plain(model)


@pytest.mark.parametrize('variant', ['car', 'mose', 'sac'])
def test_every_predictor_says_the_same_to_the_bit(variant, tmp_path):
  """Also where what training alone needs is not what it was."""
  model, back = written(small.get_config(variant), tmp_path / 'some')
  batch = {'image': IMAGE, 'example': np.uint32([4, 5])}
  for predict in model.method.predictors().values():
    run = jax.jit(lambda state, of=predict: of(state, batch, jax.random.key(0), 4))
    jax.tree.map(np.testing.assert_array_equal, run(model.state), run(back.state))


def change(path, key, value):
  content = json.loads(path.read_text())
  path.write_text(json.dumps(content | {key: value}))


def signed(path, key, value):
  """With a checksum that is right."""
  content = json.loads(path.read_text()) | {key: value}
  del content['checksum']
  path.write_text(json.dumps(content | {'checksum': files.checksum(content)}))


def cut(path):
  path.write_bytes(path.read_bytes()[:-100])


DAMAGE = {
  'arrays cut short': (lambda f: cut(f / hub.WEIGHTS), 'cannot be read as a safetensors'),
  'no arrays': (lambda f: (f / hub.WEIGHTS).write_bytes(b''), 'cannot be read as a safetensors'),
  'a pickle': (lambda f: (f / hub.WEIGHTS).write_bytes(b'\x80\x02}q.'), 'safetensors'),
  'other arrays': (
    lambda f: safetensors.numpy.save_file({'a': np.ones(3)}, f / hub.WEIGHTS),
    r'\d+ arrays differ from what was saved, first a',
  ),
  'config cut short': (lambda f: cut(f / hub.ABOUT), 'cannot be read as JSON'),
  'another config': (
    lambda f: (f / hub.ABOUT).write_text('{"model_type": "segformer"}'),
    "it has no 'format'",
  ),
  'another format': (lambda f: signed(f / hub.ABOUT, 'format', 'x'), "of the format 'x'"),
  'a changed config': (lambda f: change(f / hub.ABOUT, 'step', 9), 'differs from what was saved'),
  'no config': (lambda f: (f / hub.ABOUT).unlink(), 'no file .*config.json'),
  'a config of nothing': (lambda f: signed(f / hub.ABOUT, 'config', 3), 'cannot be read'),
}


@pytest.mark.parametrize('what', DAMAGE)
def test_damage_is_one_message(folder, what):
  damage, message = DAMAGE[what]
  damage(folder)
  with pytest.raises(UserError, match=message):
    checkpointed.load(folder)


def test_models_of_other_libraries_are_not_replaced(folder, tmp_path):
  for name, text in (('model.safetensors', 'weights'), ('config.json', '{"architectures": []}')):
    (tmp_path / name).write_text(text)
  with pytest.raises(UserError, match='holds other files'):
    hub.save(small.loaded(small.get_config()), tmp_path, CARD.text)
  assert (tmp_path / 'model.safetensors').read_text() == 'weights'
  hub.save(small.loaded(small.get_config()), folder, CARD.text)  # one of this kind is


def test_a_folder_has_one_step(folder):
  assert checkpointed.load(folder, 'latest').step == checkpointed.load(folder, '3').step == 3
  with pytest.raises(UserError, match='no step 2 in .*\n  it holds step 3 alone'):
    checkpointed.load(folder, '2')


def test_what_ships_is_found_by_name(folder, monkeypatch, capsys):
  monkeypatch.setattr(hub, 'ZOO', folder.parent)
  assert checkpointed.load('zoo:some').step == 3
  assert checkpointed.name_and_folder('zoo:some') == ('some', str(folder))
  with pytest.raises(UserError, match='no model zoo:som\n  did you mean: zoo:some'):
    hub.resolve('zoo:som')
  assert zoo.main([]) == 0
  assert re.fullmatch(r'zoo:some  supervised on fake.*, 3 steps, 0.0 MB\n', capsys.readouterr().out)
  assert zoo.main(['some']) == 0
  said, whole = capsys.readouterr().out, (folder / hub.CARD).read_text()
  assert said.startswith('# some\n')
  assert whole.startswith('---\nlicense: "apache-2.0"\n')
  assert whole.endswith(f'---\n\n{said}')
  assert zoo.main(['other']) == 2


@pytest.mark.parametrize(
  ('variant', 'predictor', 'draws'),
  [('sac', 'student argmax', False), ('supervised', 'argmax', False), ('mose', 'samples', True)],
)
def test_a_card_says_which_predictor_answers_and_whether_it_draws(
  variant, predictor, draws, tmp_path
):
  written(smoke.get_config(variant), tmp_path / 'some')
  text = (tmp_path / 'some' / hub.CARD).read_text()
  assert f'by its predictor `{predictor}`.' in text
  assert ('samples of what readers may mark' in text) == draws


def test_a_run_starts_from_one(folder):
  model = small.loaded(small.get_config())
  for where in (str(folder), f'{folder}:net'):
    state = model.method.init(1, {'image': IMAGE})
    state = init_from.init_from(state, {'net': where})
    jax.tree.map(np.testing.assert_array_equal, state.net.params, model.state.net.params)


def test_three_files_are_downloaded(folder, monkeypatch):
  hub_library = pytest.importorskip('huggingface_hub')
  asked = []

  def download(name, **kw):
    asked.append((name, kw))
    return str(folder)

  monkeypatch.setattr(hub_library, 'snapshot_download', download)
  assert checkpointed.load('hf://owner/some@v1').step == 3
  assert asked == [('owner/some', {'revision': 'v1', 'allow_patterns': [*hub.FILES]})]
  assert checkpointed.name_and_folder('hf://owner/some@v1')[0] == 'some'
  (folder / hub.WEIGHTS).unlink()
  with pytest.raises(UserError, match='hf://owner/some is no model of car_jax'):
    hub.resolve('hf://owner/some')


def test_no_network_is_one_message(monkeypatch):
  hub_library = pytest.importorskip('huggingface_hub')

  def download(*a, **kw):
    raise ConnectionError('no route')

  monkeypatch.setattr(hub_library, 'snapshot_download', download)
  with pytest.raises(UserError, match=r'hf://a/b cannot be downloaded \(no route\)'):
    hub.resolve('hf://a/b')
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(UserError, match=r"needs huggingface_hub\n  pip install 'car-jax\[hub\]'"):
    hub.resolve('hf://a/b')


@pytest.mark.parametrize('text', ['hf://a', 'hf:a/b/c', 'hf://a/b@', 'hf://../b/c'])
def test_names_of_the_hub_have_two_parts(text):
  with pytest.raises(UserError, match='expected hf://OWNER/NAME'):
    hub.resolve(text)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run') / 'run'
  changes = ('--config.steps=2', '--config.eval_every=0')
  config = ('--config', 'tests/small.py:supervised')
  assert train.main([*config, '--workdir', str(workdir), *changes]) == 0
  assert evaluation.main(['--checkpoint', str(workdir), '--config.report.split=test[:4]']) == 0
  return workdir


def test_an_exported_run_scores_as_it_did(run, tmp_path, capsys, monkeypatch):
  out = tmp_path / 'some'
  assert export.main([str(run), '--format', 'hub', '--out', str(out), '--license', 'mit']) == 0
  assert {p.name for p in out.iterdir()} == set(hub.FILES)
  monkeypatch.chdir(tmp_path)
  score = ['--checkpoint', str(out), '--own', 'tests.small', '--config.report.split=test[:4]']
  assert evaluation.main(score) == 0
  scores = [
    {s['name']: s['scores'] for s in json.loads((f / 'results.json').read_text())['subjects']}
    for f in (run / 'report', tmp_path / 'runs' / 'some' / 'report')
  ]
  assert scores[0] == scores[1]
  card = (out / hub.CARD).read_text()
  for entry in scores[0]['argmax'].values():
    assert f'{entry["mean"]:.3f}' in card
    assert f'`{entry["convention"]}`' in card
  _, front, body = card.split('---\n', 2)
  fields = dict(line.split(': ', 1) for line in front.splitlines())
  assert (json.loads(fields['license']), json.loads(fields['library_name'])) == ('mit', 'car_jax')
  assert body.startswith('\n# some\n')
  assert '/' + str(run.parent).strip('/') not in (out / hub.ABOUT).read_text()


def test_a_report_of_another_step_is_refused(run, tmp_path, capsys):
  report = tmp_path / 'report'
  shutil.copytree(run / 'report', report)
  change(report / 'results.json', 'models', ['run: here, step 7'])
  asked = ['--format', 'hub', '--out', str(tmp_path / 'out'), '--report', str(report)]
  assert export.main([str(run), *asked]) == 2
  assert 'is not of step 2' in capsys.readouterr().err


def test_options_of_the_other_format_are_refused(run, tmp_path, capsys):
  out = ['--out', str(tmp_path / 'out')]
  assert export.main([str(run), *out, '--format', 'hub', '--samples', '3']) == 2
  assert '--samples does not belong to --format hub' in capsys.readouterr().err
