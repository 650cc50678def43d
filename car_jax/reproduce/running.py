"""Does what is left of an experiment, stage by stage."""

from car_jax import folders
from car_jax.errors import UserError
from car_jax.reproduce import comparison, counts, stages
from car_jax.reproduce.stages import Request


def run(request: Request, stage: str = '') -> int:
  """The stages that are called so, all without a name -> the exit status: 1 for a score outside."""
  folders.check_writable(request.workdir)
  every = stages.of(request)
  todo = stages.chosen(every, stage)
  check(request, todo)
  for line in request.caveat():
    print(line, flush=True)
  for k, one in enumerate(todo, 1):
    if one.done():
      print(f'[{k} of {len(todo)}] {one.name}: done', flush=True)
      continue
    print(f'[{k} of {len(todo)}] {one.name}\n  {one.command}', flush=True)
    if status := one.run():
      return status
  if left := [s.name for s in every if not s.done()]:
    print(f'left: {", ".join(left)}; the same command without --stage does it')
    return 0
  lines = comparison.lines(request)
  print('\n'.join(comparison.write(request, lines)))
  return 0 if comparison.agrees(request, lines) else 1


def check(request: Request, todo: list[stages.Stage]) -> None:
  """Raises UserError for what would stop a later stage, or make it meaningless."""
  if request.experiment.study and not request.released:
    raise UserError("--released is missing: the folder of the models' files of weights")
  for source, folder in zip(request.experiment.sources, request.sources, strict=True):
    there = counts.prepared(source, request.data_dir)
    seen = counts.counted(source, folder, request.data_dir)
    if not request.partial:
      counts.check(source, seen, counts.place(source, request.data_dir) if there else folder)
  if any(s.name == 'imagenet' and not s.done() for s in todo):
    stages.check_imagenet(request)
