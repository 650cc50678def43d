"""What is read from compiled programs, and that a check goes on where it stopped."""

import collections
import csv
import dataclasses
import importlib.util
import itertools

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies

from car_jax import config as configs
from car_jax import sharding
from car_jax.errors import UserError
from tools import check_tpu, compiled
from tools.compiled import Chip, Compiled, Part, Record

HLO = """
  %all-reduce.1 = f32[64]{0:T(128)} all-reduce(%a), replica_groups={{0,1}}, to_apply=%add
  %ar = (f32[2,3]{1,0}, bf16[4]{0}) all-reduce-start(%b, %c), to_apply=%add
  %ard = (f32[2,3]{1,0}, bf16[4]{0}) all-reduce-done(%ar)
  %ag = (u8[8]{0}, u8[16]{0}) all-gather-start(%d), dimensions={0}
  %cp = (f32[5]{0}, f32[5]{0}, u32[], u32[]) collective-permute-start(%e)
  ROOT %f = f32[9]{0} fusion(%all-reduce.1), kind=kLoop
"""


def test_collectives_are_counted_once_with_what_they_give():
  counted = compiled.collectives(HLO)
  assert counted == {
    'all-reduce': (2, 4 * 64 + 4 * 6 + 2 * 4),
    'all-gather': (1, 16),
    'collective-permute': (1, 20),
  }


def test_the_bound_is_that_of_the_busiest_part():
  chip = Chip(flops=100, memory=1, bandwidth=10, links=5)
  of = lambda **kw: Compiled(flops=100, fits=True, **kw).bound(chip)
  assert of(moved=10) == 1
  assert of(moved=40) == pytest.approx(1 / 4)
  assert of(moved=40, collectives={'all-reduce': (3, 50)}) == pytest.approx(
    1 / 20
  )  # sent twice around


def test_every_config_that_trains_is_checked():
  counts = collections.Counter(name.partition(':')[0] for name in check_tpu.names())
  trains = {
    f for f in configs.shipped() if configs.command(configs.read(f'configs/{f}.py')) == 'train'
  }
  assert {*counts} == trains - {*check_tpu.WEIGHTS}
  assert not {*check_tpu.names()} & {*check_tpu.WEIGHTS}
  assert counts['segmenters_cityscapes'] > 20
  for name in check_tpu.names():
    assert configs.load(configs.path_of(name)).data.batch


def test_batches_are_rounded_up_to_the_chips():
  begun = check_tpu.setting('smoke:sac', 16, [('data.batch', '3')])
  assert begun.config.data.batch == 16
  assert len(begun.batch['image']) % 16 == len(begun.batch['target']) % 16 == 0


@pytest.fixture
def versions(monkeypatch):
  monkeypatch.setattr(compiled.metadata, 'version', lambda package: '1')


GOOD = Compiled(memory=2e9, flops=1e12, moved=1e9, fits=True)
LARGE, BROKEN = Compiled(memory=20e9), Compiled(failure='INTERNAL: no')


def keep(file, name, slice_, source, **programs):
  """In `file`: a config's programs on a slice, as they were compiled."""
  record = Record(file, -1.0)
  for program, made in programs.items():
    record.add((slice_, f'{name} {program}'), made)
  part = Part(source, {program: (8, f'{name} {program}') for program in programs})
  record.add((name, slice_), part)


def test_it_goes_on_where_it_stopped_and_names_what_failed(versions, monkeypatch, tmp_path, capsys):
  file, checked = tmp_path / 'kept.jsonl', []

  def alone(name, slices, settings):
    checked.append((name, [*slices]))
    made = {'car_toy': GOOD, 'mose_lidc': LARGE}.get(name, BROKEN)
    for slice_ in slices:
      if name == 'demo:car' and slice_ == 'v6e-1':
        return 'BrokenProcessPool: ended'
      keep(settings.file, name, slice_, settings.source, step=made)
    return ''

  monkeypatch.setattr(check_tpu, 'alone', alone)
  run = lambda *names, slices='v5e-1': check_tpu.main(
    [*names, '--slices', slices, '--file', str(file)]
  )
  assert run('car_toy') == 0
  assert run('car_toy') == 0  # kept
  assert checked == [('car_toy', ['v5e-1'])]
  assert run('car_toy', 'mose_lidc', 'car_lidc') == 1
  assert checked[1:] == [('mose_lidc', ['v5e-1']), ('car_lidc', ['v5e-1'])]
  printed = capsys.readouterr().err
  assert 'mose_lidc, step: fits none of the slices' in printed
  assert 'car_lidc on v5e-1, step: INTERNAL: no' in printed
  assert run('demo:car', slices='v5e-1,v6e-1,v5e-16') == 1
  assert checked[3:] == [('demo:car', ['v5e-1', 'v6e-1', 'v5e-16']), ('demo:car', ['v5e-16'])]
  assert 'demo:car on v6e-1: BrokenProcessPool: ended' in capsys.readouterr().err
  keep(file, 'car_toy', 'v5e-1', 'of another source', step=GOOD)
  assert run('car_toy') == 0
  assert checked[5:] == [('car_toy', ['v5e-1'])]
  assert Record(file, 0.0).parts == {}  # of another effort
  monkeypatch.setattr(compiled.metadata, 'version', lambda package: '2')
  assert Record(file, -1.0).parts == {}  # of another compiler
  with pytest.raises(UserError, match='mose_lidc'):
    run('mose_lid')


def test_an_error_that_cannot_be_pickled_is_told_in_words(monkeypatch):
  monkeypatch.setattr(check_tpu, 'check', jax.jit(int))
  assert check_tpu.attempt(1.0).startswith('ConcretizationTypeError: Abstract tracer value')


def test_a_program_that_two_configs_have_is_compiled_once(versions, monkeypatch, tmp_path, capsys):
  made = []
  monkeypatch.setattr(check_tpu, 'compiled', lambda lowered, effort: made.append(effort) or GOOD)

  def lowered(factor):
    return jax.jit(lambda x: factor * x).lower(jnp.ones(3))

  def kept(title, program, slice_='v5e-1'):
    return check_tpu.kept(Record(tmp_path / 'kept.jsonl', -1.0), title, slice_, program)

  first = kept('a, step', lowered(2))
  elsewhere = jax.jit(lambda x: 2 * x).lower(jnp.ones(3))  # the same, written in another place
  assert kept('b, step', elsewhere) == first
  assert made == [-1.0]
  assert 'b, step on v5e-1: 2.00 GB' in (printed := capsys.readouterr().out)
  assert printed.rstrip().endswith('(as a, step)')
  assert kept('c, step', lowered(3)) != first
  assert kept('a, step', lowered(2), 'v6e-1') == first  # another chip has another compiler
  assert len(made) == 3


@pytest.mark.parametrize(('size', 'efforts'), [(18e9, [-1.0, 0.0]), (40e9, [-1.0])])
def test_what_misses_memory_by_little_is_compiled_with_more_effort(
  versions, monkeypatch, tmp_path, size, efforts
):
  tried = []

  def compiled(lowered, effort):
    tried.append(effort)
    return Compiled(memory=size) if effort < 0 else Compiled(memory=15e9, fits=True)

  monkeypatch.setattr(check_tpu, 'compiled', compiled)
  record = Record(tmp_path / 'kept.jsonl', -1.0)
  check_tpu.kept(record, 'a, step', 'v5e-1', jax.jit(lambda x: x).lower(1))
  assert tried == efforts


def test_what_no_config_needs_leaves_the_file(versions, monkeypatch, tmp_path):
  file = tmp_path / 'kept.jsonl'
  keep(file, 'car_toy', 'v5e-1', 'before', step=LARGE, gone=GOOD)
  keep(file, 'car_toy', 'v5e-1', 'now', step=GOOD)
  keep(file, 'renamed', 'v5e-1', 'now', step=GOOD)
  begun = dataclasses.replace(GOOD, title='mose_lidc, step')
  Record(file, -1.0).add(('v5e-1', 'begun'), begun)
  Record(file, 0.0).add(('v5e-1', 'of another effort'), GOOD)
  before = Record(file, -1.0)
  before.tidy(['car_toy', 'mose_lidc'])
  after = Record(file, -1.0)
  assert (after.made, after.parts) == (before.made, before.parts)
  assert after.made == {('v5e-1', 'car_toy step'): GOOD, ('v5e-1', 'begun'): begun}
  assert after.parts == {
    ('car_toy', 'v5e-1'): Part('now', {'step': (8, 'car_toy step')}),
  }
  assert len(file.read_text().splitlines()) == 3


@pytest.mark.parametrize('old', ['', 'old\n'])
def test_the_table_replaces_what_lies_between_its_marks(tmp_path, old):
  page = tmp_path / 'page.md'
  other = '<!-- other -->\nc\n<!-- end -->\n'
  page.write_text(f'a\n<!-- compiled -->\n{old}<!-- end -->\n{other}')
  check_tpu.write(page, 'compiled', [['x', 'y'], ['1', r'\2']])
  table = '| x | y |\n| --- | --- |\n| 1 | \\2 |\n'
  assert page.read_text() == f'a\n<!-- compiled -->\n{table}<!-- end -->\n{other}'


def test_the_page_has_the_heaviest_program_and_the_file_all(versions, monkeypatch, tmp_path):
  file, page, table = (tmp_path / name for name in ('kept.jsonl', 'page.md', 'all.csv'))
  page.write_text('<!-- checked -->\n<!-- end -->\n<!-- compiled -->\n<!-- end -->\n')
  options = tmp_path / 'options.md'
  options.write_text('<!-- options -->\n<!-- end -->\n')
  monkeypatch.setattr(check_tpu, 'PAGE', page)
  monkeypatch.setattr(check_tpu, 'DEVICES', options)
  monkeypatch.setattr(check_tpu, 'TABLE', table)
  small = Compiled(memory=1e9, flops=1e12, moved=1e9, fits=True)
  keep(file, 'mose_lidc', 'v5e-1', '', step=LARGE, predict=small)
  keep(file, 'mose_lidc', 'v5e-16', '', step=GOOD, predict=small)
  keep(file, 'car_toy', 'v5e-1', '', step=small)
  for name in ('car_lidc', 'car_lidc_masks'):
    Record(file, -1.0).add((name, 'v5e-1'), Part('', {'step': (4, 'car_toy step')}))
  changed = Part('', {'step': (1, 'mose_lidc predict')})
  Record(file, -1.0).add(('mose_lidc', 'v5e-1', 'data.batch=1'), changed)
  assert check_tpu.main(['--write', '--file', str(file)]) == 0
  lines, total = page.read_text().splitlines(), len(check_tpu.names())
  assert lines[3:5] == [
    f'| v5e-1 | 4 of {total} | 3 | 1 | 0 |',
    f'| v6e-1 | 0 of {total} | 0 | 0 | 0 |',
  ]
  assert lines[11:-1] == [
    '| `car_lidc`, `car_lidc_masks` | step | 4 | 1.00, 100% |  |',
    '| `mose_lidc` | step | 8 | **20.00** | 2.00, 100% |',
    '| `car_toy` | step | 8 | 1.00, 100% |  |',
  ]
  assert options.read_text().splitlines()[1:-1] == [
    '| config | program | batch | v5e-1 | v5e-16 |',
    '| --- | --- | --- | --- | --- |',
    '| `mose_lidc` | step | 8 | **20.00** | 2.00, 100% |',
    '| `mose_lidc data.batch=1` | step | 1 | 1.00, 100% |  |',
  ]
  with table.open() as opened:
    kept = [*csv.DictReader(opened)]
  assert len(kept) == 8
  assert [row['program'] for row in kept if row['config'] == 'mose_lidc'] == ['step', 'predict'] * 2
  assert [row['mfu'] for row in kept if row['config'] == 'mose_lidc'] == ['', *['1.000'] * 3]


COMPILER = pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None,
  reason='CONTRIBUTING.md says how it is installed',
)


@pytest.mark.slow
@COMPILER
@pytest.mark.parametrize('name', ['v5e-16', 'v5p-64'])
def test_chips_follow_each_other_from_neighbour_to_neighbour(name, monkeypatch):
  for key, value in check_tpu.ENVIRONMENT.items():
    monkeypatch.setenv(key, value)
  topology = topologies.get_topology_desc(compiled.SLICES[name], platform='tpu')
  chips = sharding.ordered(topology.devices)
  hosts = [chip.process_index for chip in chips]
  assert hosts == sorted(hosts)
  for one, other in itertools.pairwise(chips):
    if one.process_index == other.process_index:
      assert sum(abs(a - b) for a, b in zip(one.coords, other.coords, strict=True)) == 1


@pytest.mark.slow
@COMPILER
def test_a_small_net_compiles_for_a_chip_and_for_four(tmp_path):
  file = tmp_path / 'kept.jsonl'
  arguments = ['smoke:supervised', '--slices', 'v5e-1,v5e-16', '--file', str(file)]
  assert check_tpu.main(arguments) == 0
  record = Record(file, -1.0)
  one, many = (
    {
      k: record.made[s, text]
      for k, (_, text) in record.parts['smoke:supervised', s].programs.items()
    }
    for s in ('v5e-1', 'v5e-16')
  )
  assert {*one} == {*many} == {'step', 'predict'}
  assert not one['step'].collectives
  assert many['step'].collectives['all-reduce'][0] >= 1
  assert one['step'].flops > 0
  assert one['step'].memory < compiled.chip_of('v5e-1').memory
