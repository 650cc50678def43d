"""Every experiment: what it would do, whether a folder is the published data; some of them done."""

import json
import pathlib
import re
import shlex
import shutil

import jax
import pytest

from car_jax import batch_size, published
from car_jax import config as configs
from car_jax.commands import reproduce
from car_jax.datasets import prepare
from car_jax.datasets.gta5 import gta5_dataset_builder
from car_jax.errors import UserError
from car_jax.reliability import study_options
from car_jax.reproduce import counts, experiments, stages
from tests.datasets import files, test_acdc, test_gta5, test_idd, test_lidc_v1, test_synthia
from tests.datasets.test_builders import street
from tests.generate import released
from tests.golden.fill import state_dict as filled
from tests.importers import test_mose

TRAINED = {
  'lidc-mose': ['train'],
  'lidc-car': ['train'],
  'cityscapes-mose': ['train'],
  'cityscapes-car': ['train'],
  'gta5-sac': ['base', 'sac'],
  'synthia-sac:vgg16': ['base', 'sac'],
}
SAC = ('data.batch=2', 'data.source.size=(32, 32)', 'data.target.size=(32, 32)')
SAC += ('data.target.groups=1', 'steps=1')
RESNET = ('stem_channels=4', 'blocks=(1, 1, 1, 1)', 'rates=(1, 2)')
VGG = ('widths=(4, 4, 4, 4, 4)', 'depths=(1, 1, 1, 1, 1)', 'features=4', 'rates=(1, 2)')
MOSE = ('data.batch=2', 'data.size=32', 'data.eval_size=32', 'method.model.experts=2')
MOSE += ('method.model.widths=(8, 8)', 'report.samples=2', "report.metrics=('ged16',)")
MOSE += ("evals.val.metrics=('ged16',)",)
CAR = ('data.batch=2', 'data.size=32', 'method.samples=2', 'method.generator.hidden=4')
SMALL = {
  'lidc-mose': MOSE,
  'cityscapes-mose': (*MOSE[:2], 'method.model.widths=(8, 8)'),
  'lidc-car': (*CAR, 'method.calnet.depths=(1,)', 'method.calnet.widths=(4,)'),
  'cityscapes-car': (*CAR, 'method.calnet.hidden=4'),
  'gta5-sac': (*SAC, *(f'method.model.{x}' for x in RESNET)),
  'synthia-sac:vgg16': (*SAC, *(f'method.model.{x}' for x in VGG)),
}


def flags(changes):
  return [f'--config.{change}' for change in changes]


def pickled(root, size=32):
  root.mkdir()
  test_lidc_v1.written(root / 'data_lidc.pickle', test_lidc_v1.entries(20, size))
  return root


def run(name, *more):
  """The exit status of `car-jax reproduce`."""
  return reproduce.main([name, *map(str, more)])


def stages_of(text):
  """Name -> command, of what a dry run prints."""
  return dict(re.findall(r'^(\S+)(?: \(done\))?\n  ((?:car-jax|python) .*)$', text, re.MULTILINE))


@pytest.mark.parametrize('name', TRAINED)
def test_a_dry_run_says_what_a_training_would_do(name, tmp_path, capsys):
  assert run(name, '--dry-run', '--workdir', tmp_path / 'w', '--seeds', 2, *flags(SMALL[name])) == 0
  assert not (tmp_path / 'w').exists()
  text = capsys.readouterr().out
  made, experiment = stages_of(text), experiments.find(name)
  wanted = [f'prepare/{s.data}' for s in experiment.sources]
  wanted += ['imagenet'] if experiment.start else []
  for training in experiment.trainings:
    for seed in (0, 1):
      wanted += [f'found/seed{seed}', f'counts/seed{seed}'] if training.after else []
      wanted.append(f'{training.name}/seed{seed}')
    wanted.append(f'{training.name}/report')
  assert [*made] == wanted
  for k, source in enumerate(experiment.sources):
    given = shlex.split(made[f'prepare/{source.data}'])[2:]
    prepare.parse(given)
    numbers = ', '.join(f'{n:,} {split}' for split, n in experiment.sources[k].counts[0].items())
    assert f'{source.data}: {numbers}' in text
  for training in TRAINED[name]:
    words = shlex.split(made[f'{training}/seed1'])
    config = configs.load(words[3], configs.split_overrides(words[6:]))
    assert config.seed == 1
    assert re.search(rf'^{training}  +{config.steps:,}  .*  2$', text, re.MULTILINE)
  if training == 'sac':
    assert config.init.net == f'{tmp_path}/w/base/seed1:net'
    assert config.data.target.counts == f'{tmp_path}/w/found/seed1/counts.npz'


@pytest.mark.parametrize('name', ['relis', 'genval'])
def test_a_dry_run_says_what_a_study_would_do(name, tmp_path, capsys):
  data = ('--data-dir', tmp_path / 'data')
  assert run(name, '--dry-run', '--workdir', tmp_path / 'w', '--released', tmp_path, *data) == 0
  made = stages_of(capsys.readouterr().out)
  last = 'idd' if name == 'relis' else 'generated_scenes'
  assert [*made][:3] == ['prepare/cityscapes', 'prepare/acdc', f'prepare/{last}']
  assert [*made][3:] == ['import', 'validation', 'study']
  for stage in ('validation', 'study'):
    words = shlex.split(made[stage])
    study = study_options.load(words[3], configs.split_overrides(words[6:]))
    assert {s.data.data_dir for s in study.sets.values()} == {str(tmp_path / 'data')}
    assert all(m.path.startswith(f'{tmp_path}/w/models/') for m in study.models.values())
    kept = [published.scores(m.published.scores.to_dict()) for m in study.models.values()]
    assert sum(map(len, kept)) > 15


MADE = {
  'lidc_v1': (pickled, {'train+validation+test': 20}),
  'lidc_crops': (files.lidc_crops, {'train': 2, 'validation': 2, 'test': 2}),
  'cityscapes': (street, {'train': 1, 'validation': 1, 'test': 3}),
  'gta5': (test_gta5.gta5, {'train': 1, 'validation': 2}),
  'synthia': (test_synthia.synthia, {'train': 2, 'validation': 1}),
  'acdc': (test_acdc.acdc, {'fog_test': 2, 'night_calibration': 0}),
  'idd': (test_idd.idd, {'train+test': 4, 'calibration': 1}),
  'generated_scenes': (released.styles, {'fog': 2, 'heavy_rain': 2}),
}
SOURCES = {s.data: s for e in experiments.EXPERIMENTS.values() for s in e.sources[-1:]}
SOURCES |= {'cityscapes': experiments.FLIPPED, 'gta5': experiments.GTA5, 'acdc': experiments.ACDC}
SOURCES |= {'synthia': experiments.SYNTHIA}


@pytest.mark.parametrize('name', MADE)
def test_examples_are_counted_before_anything_is_prepared(name, tmp_path):
  make, wanted = MADE[name]
  make(tmp_path / 's')
  source = SOURCES[name]
  seen = counts.counted(source, tmp_path / 's', tmp_path / 'data')
  assert {k: sum(seen.get(s, 0) for s in k.split('+')) for k in wanted} == wanted
  assert not (tmp_path / 'data').exists()
  if source.counts:
    with pytest.raises(UserError) as e:
      counts.check(source, seen, tmp_path / 's')
    numbers = re.findall(r'[\d,]*\d(?= )', str(e.value))
    shown = [*counts._sums(seen, source.counts[0]).values()]
    assert [int(n.replace(',', '')) for n in numbers][: len(shown)] == shown
    assert all(f'{n:,}' in str(e.value) for published in source.counts for n in published.values())
    assert '--partial' in str(e.value)


@pytest.mark.parametrize('which', [0, 1])
def test_either_published_count_will_do(which):
  counts.check(experiments.LIDC_V2, experiments.LIDC_V2.counts[which] | {'more': 1}, 'x')
  less = experiments.LIDC_V2.counts[which] | {'test': 1979}
  with pytest.raises(UserError, match=r'1,979 test; the published lidc_crops has 8,843 train'):
    counts.check(experiments.LIDC_V2, less, 'x')


def test_mose_is_trained_scored_and_continued(tmp_path, capsys):
  given = ('--source', pickled(tmp_path / 's'), '--data-dir', tmp_path / 'data')
  given += ('--workdir', tmp_path / 'w', '--seeds', 1, *flags(MOSE))
  assert run('lidc-mose', *given, '--config.steps=2') == 2
  assert '20 train + validation + test; the published lidc_v1 has 15,096' in capsys.readouterr().err
  given += ('--partial',)
  assert run('lidc-mose', *given, '--stage', 'train/seed0', '--config.steps=1') == 2
  assert 'not prepared' in capsys.readouterr().err
  assert run('lidc-mose', *given, '--config.steps=1') == 0
  text = capsys.readouterr().out
  assert re.search(r'^train +ged16 +0\.218 ± 0\.003 .* 1 +± 0\.01 +–$', text, re.MULTILINE)
  assert '0.218 ± 0.003' in (tmp_path / 'w/train-report/report.md').read_text()
  assert '0.218 ± 0.003' in (tmp_path / 'w/train-report/report.html').read_text()
  # what is finished is not done again, and its folder is of one config
  assert run('lidc-mose', *given, '--config.steps=1') == 0
  again = capsys.readouterr().out
  assert re.findall(r'^\[\d of 3\] (.*)$', again, re.MULTILINE) == [
    'prepare/lidc_v1: done', 'train/seed0: done', 'train/report: done',
  ]  # fmt: skip
  assert again.splitlines()[-5:] == text.splitlines()[-5:]
  assert run('lidc-mose', *given, '--config.method.optim.lr=1.0', '--config.steps=1') == 2
  assert 'method.optim.lr: 0.001 -> 1.0' in capsys.readouterr().err
  # one that was stopped goes on, and its report is made anew
  assert run('lidc-mose', *given, '--config.steps=2') == 0
  more = capsys.readouterr().out
  assert 'continuing from step 1' in more
  assert 'train/report\n' in more
  line = json.loads((tmp_path / 'w/reproduction.json').read_text())
  assert line['departures'][0].startswith('part of the data')


def test_a_batch_for_the_devices_is_trained_and_said(tmp_path, monkeypatch):
  """What a run keeps is its config with the batch that devices share: it is that run."""
  request = stages.Request(experiments.find('gta5-sac'), tmp_path, (None, None))
  assert not request.departures()
  monkeypatch.setattr(jax, 'device_count', lambda: 8)
  assert request.departures() == ['base: batch 12 -> 16, which 8 devices share']
  stage = next(s for s in stages.of(request) if s.name == 'base/seed0')
  assert not stage.done()
  words = shlex.split(stage.command)
  config = configs.load(words[3], configs.split_overrides(words[6:]))
  kept, _ = batch_size.effective(config, 8)
  (tmp_path / 'base/seed0').mkdir(parents=True)
  (tmp_path / 'base/seed0/config.json').write_text(configs.to_json(kept))
  assert not stage.done()  # nor of another config
  monkeypatch.setattr(jax, 'device_count', lambda: 1)
  with pytest.raises(UserError, match='data.batch: 16 -> 12'):
    next(s for s in stages.of(request) if s.name == 'base/seed0').done()


def test_sac_is_trained_in_its_stages(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(gta5_dataset_builder, 'SIZE', (19, 11))
  test_gta5.gta5(tmp_path / 'gta5', frames=(1, 2, 3, 4))
  street(tmp_path / 'cs')
  given = ('--source', tmp_path / 'gta5', tmp_path / 'cs', '--data-dir', tmp_path / 'data')
  given += (
    '--workdir',
    tmp_path / 'w',
    '--seeds',
    1,
    '--partial',
    *flags(SMALL['synthia-sac:vgg16']),
  )
  assert run('gta5-sac:vgg16', *given) == 2
  error = capsys.readouterr().err
  assert 'vgg16_bn-6c64b313.pth, then --imagenet' in error
  assert not (tmp_path / 'data').exists()
  assert run('gta5-sac:vgg16', *given, '--imagenet', 'none') == 0
  text = capsys.readouterr().out
  for training, value in (('base', '0.371'), ('sac', '0.498')):
    assert re.search(rf'^{training} +miou +{value} ', text, re.MULTILINE)
  assert "no ImageNet's weights" in text
  assert (tmp_path / 'w/found/seed0/counts.npz').exists()


def test_released_weights_are_scored(tmp_path, capsys):
  file = test_mose.written(tmp_path / 'x.pth', filled(test_mose.MANIFEST))
  given = ('--source', pickled(tmp_path / 's'), '--data-dir', tmp_path / 'data', '--partial')
  given += ('--workdir', tmp_path / 'w', '--released', file, *test_mose.LIGHT)
  given += (*flags(MOSE[-3:-1]), '--config.data.eval_size=32')
  assert run('lidc-mose', *given) == 0
  text = capsys.readouterr().out
  assert re.search(r'^released +ged16 +0\.213 ', text, re.MULTILINE)
  assert re.findall(r'^\[\d of (\d)\] (.*)$', text, re.MULTILINE) == [
    ('3', 'prepare/lidc_v1'), ('3', 'import'), ('3', 'released/report'),
  ]  # fmt: skip


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['lidc_mose'], "no experiment 'lidc_mose'\n  did you mean: lidc-mose"),
    (['lidc-mose:x'], "lidc-mose has no variant 'x'"),
    (['gta5-sac:vgg17'], 'did you mean: vgg16'),
    (['gta5-sac', '--source', 'x'], '--source has 1 of 2 folders\n  --source GTA5 CITYSCAPES'),
    (['lidc-mose', '--dry-run', '--stage', 'trian'], "no stage 'trian'\n  known: prepare/lidc_v1"),
    (['lidc-mose', '--seeds', '0'], '--seeds is 1 or more'),
    (['relis'], '--released is missing'),
    (['lidc-mose', '--data-dir', '/nowhere'], 'lidc_v1 needs --source'),
    (['lidc-car', '--dry-run', '--config.stepps=3'], "unknown config key 'stepps'"),
  ],
)
def test_a_mistake_is_one_message(arguments, message, tmp_path, capsys):
  assert run(*arguments, '--workdir', tmp_path / 'w') == 2
  assert message in capsys.readouterr().err


def test_another_net_of_sac():
  vgg = experiments.find('synthia-sac:vgg16')
  assert [t.config for t in vgg.trainings] == [
    'configs/sac_synthia.py:vgg16_base', 'configs/sac_synthia.py:vgg16',
  ]  # fmt: skip
  assert vgg.start.file == 'vgg16_bn-6c64b313.pth'


def test_a_black_box_is_needed_where_the_nets_see_one(tmp_path):
  street(tmp_path / 's')
  shutil.rmtree(tmp_path / 's' / 'black_box')
  with pytest.raises(UserError, match='black_box is not there'):
    counts.counted(experiments.FLIPPED, tmp_path / 's', tmp_path / 'data')


def test_the_stages_of_a_name():
  request = stages.Request(experiments.find('lidc-mose'), pathlib.Path('w'), sources=(None,))
  every = stages.of(request)
  assert [s.name for s in stages.chosen(every, 'train')] == [
    'train/seed0', 'train/seed1', 'train/seed2', 'train/report',
  ]  # fmt: skip


def test_the_page_has_every_published_score_and_its_commands_are_right():
  page = pathlib.Path('docs/reproduce.md').read_text()
  rows = dict(re.findall(r'^\| `(\S+)` (\|.*)$', page.partition('## ')[0], re.MULTILINE))
  assert [*rows] == [*experiments.EXPERIMENTS]
  for name, experiment in experiments.EXPERIMENTS.items():
    for training in experiment.trainings:
      for score in published.scores(configs.load(training.config).published.to_dict()):
        assert re.search(rf'{re.escape(score.text)}\b', rows[name]), (name, score)
        assert f'{score.tolerance:g}' in rows[name], (name, score)
    if experiment.trainings:
      numbers = experiment.sources[0].counts[0].values()
      assert all(f'{n:,}' in rows[name] for n in numbers), name
  commands = re.findall(r'^car-jax reproduce (.*)$', page, re.MULTILINE)
  assert len(commands) == 6
  for command in commands:
    args, rest = reproduce.parse(shlex.split(command))
    experiment = experiments.find(args.experiment)
    assert not rest
    assert len(args.source) in (0, len(experiment.sources))
    assert not experiment.study or args.released
