"""What is read from compiled programs, and that a check goes on where it stopped."""

import collections
import dataclasses
import importlib.util

import pytest

from car_jax import config as configs
from car_jax.errors import UserError
from tools import check_tpu
from tools.check_tpu import CHIPS, Compiled, Part, Record

HLO = """
  %all-reduce.1 = f32[64]{0:T(128)} all-reduce(%a), replica_groups={{0,1}}, to_apply=%add
  %ar = (f32[2,3]{1,0}, bf16[4]{0}) all-reduce-start(%b, %c), to_apply=%add
  %ard = (f32[2,3]{1,0}, bf16[4]{0}) all-reduce-done(%ar)
  %ag = (u8[8]{0}, u8[16]{0}) all-gather-start(%d), dimensions={0}
  %cp = (f32[5]{0}, f32[5]{0}, u32[], u32[]) collective-permute-start(%e)
  ROOT %f = f32[9]{0} fusion(%all-reduce.1), kind=kLoop
"""


def test_collectives_are_counted_once_with_what_they_give():
  counted = check_tpu.collectives(HLO)
  assert counted == {
    'all-reduce': (2, 4 * 64 + 4 * 6 + 2 * 4),
    'all-gather': (1, 16),
    'collective-permute': (1, 20),
  }


def test_the_bound_is_that_of_the_busiest_part():
  chip = check_tpu.Chip(flops=100, memory=1, bandwidth=10, links=5)
  of = lambda **kw: Compiled(flops=100, fits=True, **kw).bound(chip)
  assert of(moved=10) == 1
  assert of(moved=40) == pytest.approx(1 / 4)
  assert of(moved=40, collectives={'all-reduce': (3, 50)}) == pytest.approx(
    1 / 20
  )  # sent twice around


def test_every_config_that_trains_is_checked_with_its_variants():
  counts = collections.Counter(name.partition(':')[0] for name in check_tpu.names())
  trains = {
    f for f in configs.shipped() if configs.command(configs.read(f'configs/{f}.py')) == 'train'
  }
  assert {*counts} == trains - {*check_tpu.WEIGHTS}
  assert counts['segmenters_cityscapes'] > 20
  for name in check_tpu.names():
    assert configs.load(check_tpu.file_of(name)).data.batch


def test_batches_are_rounded_up_to_the_chips():
  begun = check_tpu.setting('smoke:sac', 16, [('data.batch', '3')])
  assert begun.config.data.batch == 16
  assert len(begun.batch['image']) % 16 == len(begun.batch['target']) % 16 == 0


@pytest.fixture
def versions(monkeypatch):
  monkeypatch.setattr(check_tpu.metadata, 'version', lambda package: '1')


def test_it_goes_on_where_it_stopped_and_names_what_failed(versions, monkeypatch, tmp_path, capsys):
  file, checked = tmp_path / 'kept.json', []

  def alone(name, slice_, changes, file):
    checked.append((name, slice_))
    record = Record.load(file)
    good = Compiled(batch=1, memory=2e9, flops=1e12, moved=1e9, fits=True)
    large, broken = Compiled(memory=20e9), Compiled(failure='INTERNAL: no')
    made = {'car_toy': good, 'mose_lidc': large}.get(name, broken)
    record.parts[f'{name} {slice_}'] = Part({'step': made}, complete=True)
    record.save(file)
    return ''

  monkeypatch.setattr(check_tpu, 'alone', alone)
  run = lambda *names: check_tpu.main([*names, '--slices', 'v5e-1', '--file', str(file)])
  assert run('car_toy') == 0
  assert run('car_toy') == 0  # kept
  assert checked == [('car_toy', 'v5e-1')]
  assert run('car_toy', 'mose_lidc', 'car_lidc') == 1
  assert checked[1:] == [('mose_lidc', 'v5e-1'), ('car_lidc', 'v5e-1')]
  printed = capsys.readouterr().err
  assert 'mose_lidc, step: fits none of the slices' in printed
  assert 'car_lidc on v5e-1, step: INTERNAL: no' in printed
  monkeypatch.setattr(check_tpu.metadata, 'version', lambda package: '2')
  assert Record.load(file).parts == {}  # another compiler's
  with pytest.raises(UserError, match='mose_lidc'):
    run('mose_lid')


@pytest.mark.parametrize('old', ['', 'old\n'])
def test_the_table_replaces_what_lies_between_its_marks(tmp_path, old):
  page = tmp_path / 'page.md'
  other = '<!-- other -->\nc\n<!-- end -->\n'
  page.write_text(f'a\n<!-- compiled -->\n{old}<!-- end -->\n{other}')
  check_tpu.write(page, 'compiled', [['x', 'y'], ['1', r'\2']])
  table = '| x | y |\n| --- | --- |\n| 1 | \\2 |\n'
  assert page.read_text() == f'a\n<!-- compiled -->\n{table}<!-- end -->\n{other}'
  row = Compiled(batch=4, memory=2e9, flops=1e12, moved=1e9, fits=True).cells(CHIPS['v5e'])
  assert row == ['2.00', '1', '1', '', '100%']


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='make check-tpu has libtpu')
def test_a_small_net_compiles_for_a_chip_and_for_four(tmp_path):
  file = tmp_path / 'kept.json'
  arguments = ['smoke:deterministic', '--slices', 'v5e-1,v5e-16', '--file', str(file)]
  assert check_tpu.main(arguments) == 0
  parts = Record.load(file).parts
  one, many = (parts[f'smoke:deterministic {name}'].programs for name in ('v5e-1', 'v5e-16'))
  assert {*one} == {*many} == {'step', 'predict'}
  assert not one['step'].collectives
  assert many['step'].collectives['all-reduce'][0] >= 1
  assert one['step'].flops > 0
  assert dataclasses.asdict(one['step'])['memory'] < CHIPS['v5e'].memory
