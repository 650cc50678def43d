"""docs/clusters.md: blocks that it calls tested run as they stand there; the others are parsed."""

import fnmatch
import os
import pathlib
import re
import socket
import subprocess
import sys

import jax
import pytest
import yaml
from jax._src import xla_bridge

from car_jax import config as configs
from car_jax import saved_steps, sharding
from car_jax.commands import cluster, train
from car_jax.errors import UserError
from tests import conftest
from tests.test_sharding import free_port

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / 'docs/clusters.md').read_text()
CAR = f'exec {sys.executable} -m car_jax "$@"'
SRUN = """
for k in 0 1; do
  SLURM_PROCID=$k SLURM_LOCALID=$k "$@" & pids="$pids $!"
done
for pid in $pids; do wait $pid || exit; done
"""


def blocks(heading, kind):
  (section,) = re.findall(rf'^## {heading}\n(.*?)(?=^## |\Z)', PAGE, re.DOTALL | re.MULTILINE)
  return re.findall(rf'^```{kind}\n(.*?)^```', section, re.DOTALL | re.MULTILINE)


@pytest.fixture
def shell(tmp_path):
  """Runs a script where car-jax, and SLURM's srun and scontrol, are on the PATH -> its output."""
  programs = dict({'car-jax': CAR}, srun=SRUN, scontrol='echo 127.0.0.1\necho 127.0.0.2')
  for name, text in programs.items():
    (tmp_path / name).write_text(f'#!/bin/sh\n{text}\n')
    (tmp_path / name).chmod(0o755)

  def run(script, **more):
    env = os.environ | dict(PATH=f'{tmp_path}:{os.environ["PATH"]}', PYTHONPATH=str(ROOT))
    env |= dict(XLA_FLAGS=conftest.QUICK, JAX_PLATFORMS='cpu') | more
    script = script.replace(':12345', f':{free_port()}')
    ran = subprocess.run(
      ['sh', '-c', script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=400
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout

  return run


def is_free(port):
  with socket.socket() as s:
    try:
      s.bind(('127.0.0.1', port))
    except OSError:
      return False
  return True


def slurm(**more):
  """What srun sets of a job of one node and two tasks; jax makes the port of the job's number."""
  job = str(next(n for n in range(61440, 65536) if is_free(n)))
  nodes = dict(SLURM_JOB_NODELIST='127.0.0.1', SLURM_NTASKS='2', SLURM_STEP_NUM_NODES='1')
  return nodes | dict(SLURM_JOB_ID=job) | more


def check_run(out, folder):
  assert '2 x cpu (cpu), 2 process(es), batch 8 (4 per device)' in out
  steps = configs.load('configs/smoke.py:supervised').steps
  assert saved_steps.locate(folder, 'latest')[1] == steps


@pytest.mark.slow
def test_two_processes_on_one_machine(shell, tmp_path):
  (block,) = blocks('Several processes on one machine', 'sh')
  check_run(shell(block), tmp_path / 'runs' / 'two')


@pytest.mark.slow
def test_slurm_by_its_variables_and_by_flags(shell, tmp_path):
  detected, flags = blocks('SLURM', 'sh')
  check_run(shell(detected, **slurm(SLURM_STEP_NODELIST='127.0.0.1')), tmp_path / 'runs' / 'slurm')
  check_run(shell(flags, **slurm()), tmp_path / 'runs' / 'flags')


# Written in one piece: two processes share a pipe.
WHO = """
from car_jax import errors
from car_jax.commands import cluster
import jax
import sys
parser = errors.parser('train', '')
cluster.add(parser)
with cluster.joined(parser.parse_args(['--distributed'])):
  sys.stdout.write(f'{jax.process_index()} of {jax.process_count()}' + chr(10))
"""


def test_jax_finds_slurm_s_processes(shell):
  out = shell(
    f"srun {sys.executable} -c '{WHO.replace(chr(39), chr(34))}'",
    **slurm(SLURM_STEP_NODELIST='127.0.0.1'),
  )
  assert sorted(out.split('\n')) == ['', '0 of 2', '1 of 2']


def test_the_arguments_of_kubernetes_are_those_of_train():
  (block,) = blocks('Kubernetes', 'yaml')
  job = yaml.safe_load(block)
  (set_of_pods,) = job['spec']['replicatedJobs']
  pods = set_of_pods['template']['spec']
  (container,) = pods['template']['spec']['containers']
  command, *arguments = container['args']
  assert command == 'train'
  filled = [a.replace('$(JOB_COMPLETION_INDEX)', '1') for a in arguments]
  args, rest = train.parse(filled)
  assert (args.processes, args.process) == (pods['completions'], 1) == (pods['parallelism'], 1)
  host = f'{job["metadata"]["name"]}-{set_of_pods["name"]}-0-0.{job["metadata"]["name"]}'
  assert args.coordinator == f'{host}:{container["ports"][0]["containerPort"]}'
  config = configs.load(args.config, configs.split_overrides(rest))
  assert config.data.data_dir == 'gs://BUCKET/data'


def test_the_commands_of_a_pod_slice_are_taken():
  (block,) = blocks('A TPU pod slice', '')
  (command,) = re.findall(r'"car-jax train (.*?)"', block, re.DOTALL)
  args, rest = train.parse(command.replace('\\\n', ' ').split())
  assert args.distributed
  configs.load(args.config, configs.split_overrides(rest))


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--distributed'], r'no cluster tells(.|\n)*srun, mpirun(.|\n)*--coordinator HOST:PORT'),
    (['--coordinator', '127.0.0.1:1'], 'no cluster tells who .*Number of processes'),
    (['--coordinator', 'node0', '--processes', '2', '--process', '1'], 'expected HOST:PORT'),
    (['--coordinator', '127.0.0.1:1', '--processes', '2', '--process', '1'], 'no process 0 at'),
  ],
)
def test_who_is_alone_is_told(flags, message, monkeypatch):
  for name in [name for name in os.environ if name.startswith(('SLURM_', 'OMPI_'))]:
    monkeypatch.delenv(name)
  monkeypatch.setattr(sharding, 'PATIENCE', 0.1)
  monkeypatch.setattr(xla_bridge, 'backends_are_initialized', lambda: False)
  args, _ = train.parse(['--config', 'configs/smoke.py:supervised', *flags])
  with pytest.raises(UserError, match=message), cluster.joined(args):
    pass
  assert jax.process_count() == 1


def test_the_image_has_what_the_package_needs():
  """By the rules of .dockerignore: the last that matches counts, ! takes back."""
  rules = (ROOT / '.dockerignore').read_text().split()
  listed = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True)

  def sent(path):
    kept = True
    for rule in rules:
      name = rule.removeprefix('!')
      if fnmatch.fnmatch(path, name) or path.startswith(f'{name}/'):
        kept = rule.startswith('!')
    return kept

  names = {path for path in listed.stdout.split() if sent(path)}
  tops = {path.split('/')[0] for path in names}
  project = (ROOT / 'pyproject.toml').read_text()
  assert tops == {'car_jax', 'configs', 'datasets', 'pyproject.toml'} | {
    name for name in ('requirements.txt', 'README.md', 'LICENSE') if f'"{name}"' in project
  }
  image = (ROOT / 'Dockerfile').read_text()
  assert 'ENTRYPOINT ["car-jax"]' in image
  assert 'car-jax = "car_jax.__main__:cli"' in project
  for extra in re.search(r'EXTRAS=([\w,]+)', image)[1].split(','):
    assert re.search(rf'^{extra} = \[', project, re.MULTILINE)
