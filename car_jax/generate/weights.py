"""Folders of the diffusers library <-> our networks with their parameters.

  FOLDER/model_index.json, unet/, vae/, text_encoder/, tokenizer/, scheduler/
  FOLDER/unet/config.json, FOLDER/unet/diffusion_pytorch_model[.fp16].safetensors

Names of weights map mechanically, see `torch_name`. Nothing is filled in: a file that lacks a
weight of the network, or has one more, is refused with the list.
"""

import dataclasses
import functools
import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from car_jax import files, folders
from car_jax.errors import UserError, nearest, writing
from car_jax.generate import configs, tokenizer
from car_jax.generate.blocks import PLAIN, Compute
from car_jax.generate.clip_text import ClipText
from car_jax.generate.samplers import NoiseSchedule
from car_jax.generate.unet import UNet
from car_jax.generate.vae import PIXEL_SCALE, VAE, Pixels
from car_jax.importers import tables, torch_file
from car_jax.importers.rules import convolution, linear
from car_jax.importers.safetensors_file import read_safetensors

Params = dict[str, Any]
Weights = Mapping[str, np.ndarray]
MOST_LISTED = 12
TORCH_AXES = {4: (3, 2, 0, 1), 2: (1, 0)}  # of kernels, from ours
STEMS = dict.fromkeys(('unet', 'controlnet', 'vae'), 'diffusion_pytorch_model')
STEMS |= {'text_encoder': 'model'}  # transformers' name
OURS = 'car_jax.json'  # in folders that were written here, which alone are replaced
# Of the autoencoder's attention, before the library renamed them.
OLD_ATTENTION = {'query': 'to_q', 'key': 'to_k', 'value': 'to_v', 'proj_attn': 'to_out.0'}
STABLE_DIFFUSION = ('unet', 'vae', 'text_encoder')  # the networks of a pipeline
PIPELINES: tuple[str, ...] = ('StableDiffusionPipeline', 'StableDiffusionInpaintPipeline')
PIPELINES += ('StableDiffusionImg2ImgPipeline', 'StableDiffusionInpaintPipelineLegacy')
PIPELINES += ('StableDiffusionControlNetPipeline', 'StableDiffusionControlNetInpaintPipeline')
PIPELINES += ('StableDiffusionControlNetImg2ImgPipeline',)


# Names -------------------------------------------------------------------------------------------


def torch_name(path: str) -> str:
  """down_blocks_0/attentions_1/proj_in/kernel -> down_blocks.0.attentions.1.proj_in.weight"""
  parent, _, leaf = path.rpartition('/')
  parent = re.sub(r'(?<!linear)_(\d+)(?=/|$)', r'.\1', parent).replace('/', '.')
  return f'{parent}.{"bias" if leaf == "bias" else "weight"}'


@functools.cache
def template(net: nn.Module) -> Params:
  """The shapes of a network's parameters, nothing computed. Not to be changed."""
  key = jax.random.key(0)
  return jax.eval_shape(lambda: net.init(key, *net.smallest())['params'])


def named(tree: Params) -> dict[str, tuple[str, Any]]:
  """torch's name -> our leaf's name and the leaf."""
  flat = jax.tree_util.tree_flatten_with_path(tree)[0]
  paths = ['/'.join(key.key for key in path) for path, _ in flat]
  return {torch_name(p): (p.rpartition('/')[2], a) for p, (_, a) in zip(paths, flat, strict=True)}


def torch_shapes(tree: Params) -> dict[str, tuple[int, ...]]:
  """Name and shape of every weight as torch has them, of parameters or a `template`."""
  axes = lambda leaf, a: TORCH_AXES[a.ndim] if leaf == 'kernel' else range(a.ndim)
  return {name: tuple(a.shape[i] for i in axes(leaf, a)) for name, (leaf, a) in named(tree).items()}


def to_torch(tree: Params) -> dict[str, np.ndarray]:
  """Parameters as a state dict of torch's."""
  turned = lambda leaf, a: a.transpose(TORCH_AXES[a.ndim]) if leaf == 'kernel' else a
  return {
    name: np.ascontiguousarray(turned(leaf, np.asarray(a)))
    for name, (leaf, a) in named(tree).items()
  }


def canonical(kind: str, weights: Weights) -> dict[str, np.ndarray]:
  """Weights by the names and shapes of today's library, without the buffers that it once saved."""
  arrays = {}
  for name, a in weights.items():
    if kind == 'text_encoder':
      name = name.removeprefix('text_model.')
      if name.endswith('.position_ids'):
        continue
    if kind == 'vae' and (part := re.fullmatch(r'(.*mid_block\.attentions\.0)\.(.+)', name)):
      module, _, leaf = part[2].rpartition('.')
      name = f'{part[1]}.{OLD_ATTENTION.get(module, module)}.{leaf}'
      if leaf == 'weight' and a.ndim == 4 and a.shape[2:] == (1, 1):
        a = a[:, :, 0, 0]
    if name in arrays:
      raise UserError(f'{name} is in the file under two names')
    arrays[name] = a
  return arrays


def fitted(kind: str, net: nn.Module, weights: Weights, where: Any, dtype: Any = None) -> Params:
  """A state dict as the network's parameters, of `dtype` or as they are.

  Raises UserError with every weight that is missing, not known, or of another shape.
  """
  shapes, weights = template(net), canonical(kind, weights)
  wanted = torch_shapes(shapes)
  wrong = [f'{n} {shape}: not in the file' for n, shape in wanted.items() if n not in weights]
  wrong += [f'{n} {a.shape}: not in the network' for n, a in weights.items() if n not in wanted]
  wrong += [
    f'{name}: {a.shape} in the file, {wanted[name]} in the network'
    for name, a in weights.items()
    if name in wanted and a.shape != wanted[name]
  ]
  if wrong:
    shown = '\n'.join(f'  {w}' for w in wrong[:MOST_LISTED])
    more = len(wrong) - MOST_LISTED
    shown += f'\n  and {more} more' if more > 0 else ''
    raise UserError(f'{where}: {len(wrong)} weights do not fit:\n{shown}')

  def leaf(path: Any, _: Any) -> np.ndarray:
    name = '/'.join(key.key for key in path)
    a = weights[torch_name(name)]
    if name.endswith('/kernel'):
      a = convolution(a) if a.ndim == 4 else linear(a)
    return np.ascontiguousarray(a, a.dtype if dtype is None else dtype)

  return jax.tree_util.tree_map_with_path(leaf, shapes)


# Files -------------------------------------------------------------------------------------------


def weight_file(kind: str, folder: pathlib.Path) -> pathlib.Path:
  """The file with a network's weights, or the index of several. Raises UserError: none.

  safetensors before torch's .bin, float32 before float16.
  """
  stem = STEMS[kind]
  torch_stem = 'pytorch_model' if kind == 'text_encoder' else stem
  single, half, torchs = f'{stem}.safetensors', f'{stem}.fp16.safetensors', f'{torch_stem}.bin'
  names = [single, f'{single}.index.json', half, f'{stem}.safetensors.index.fp16.json']
  names += [f'{half}.index.json', torchs, f'{torch_stem}.fp16.bin']
  for name in names:
    if (folder / name).exists():
      return folder / name
  there = ', '.join(sorted(p.name for p in folder.iterdir())[:8]) if folder.is_dir() else ''
  raise UserError(
    f'{folder} has no weights; it has {there or "no files"}\n'
    f'  {single}, {half}, {torchs} or the index of several files is expected'
  )


def read(kind: str, folder: str | pathlib.Path) -> tuple[pathlib.Path, dict[str, np.ndarray]]:
  """The file or index, and the state dict. Raises UserError by path: damaged, missing."""
  path = weight_file(kind, pathlib.Path(folder))
  if path.suffix == '.bin':
    content = torch_file.read_saved(path, 'state_dict', 'weights')
    return path, tables.find(path, content, f'{kind} of diffusers')
  if path.suffix == '.safetensors':
    return path, read_safetensors(path)
  places = files.read_json(path, keys=('weight_map',))['weight_map']
  if not isinstance(places, dict) or not all(isinstance(p, str) for p in places.values()):
    raise UserError(f'{path}: its weight_map does not say which file has which weight')
  if strange := [p for p in places.values() if pathlib.PurePath(p).name != p]:
    raise UserError(f'{path} names {strange[0]!r:.80}, which is no file beside it')
  state: dict[str, np.ndarray] = {}
  for name in sorted({*places.values()}):
    part = read_safetensors(path.parent / name)
    if lost := [w for w, p in places.items() if p == name and w not in part]:
      raise UserError(f'{path.parent / name} has no {lost[0]}, which {path.name} says it has')
    if twice := [w for w in part if w in state]:
      raise UserError(f'{path.parent}: {twice[0]} is in two files')
    state |= part
  return path, state


def load(
  kind: str,
  folder: str | pathlib.Path,
  *,
  dtype: Any = np.float32,
  compute: Compute = PLAIN,
) -> tuple[Any, Params]:
  """A network and its parameters from a folder such as FOLDER/unet: config.json and weights.

  kind: unet, controlnet, vae or text_encoder. dtype: of the parameters; None for the file's own.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise UserError(f'no folder {folder}, where {kind} is expected')
  path = folder / 'config.json'
  net = configs.module(kind, files.read_json(path), path, compute)
  where, weights = read(kind, folder)
  return net, fitted(kind, net, weights, where, dtype)


def save(kind: str, folder: str | pathlib.Path, net: nn.Module, params: Params) -> None:
  """A network as the diffusers library reads it: config.json and one safetensors file.

  The folder appears when it is complete; one that holds anything else is left alone (UserError).
  """
  folder = pathlib.Path(folder)
  with writing(folder), folders.replaced(folder, OURS) as part:
    _write(kind, part, net, params)
    (part / OURS).write_text('{}\n')


def _write(kind: str, folder: pathlib.Path, net: nn.Module, params: Params) -> None:
  import safetensors.numpy

  prefix = 'text_model.' if kind == 'text_encoder' else ''
  arrays = {prefix + name: a for name, a in to_torch(params).items()}
  folder.mkdir(exist_ok=True)
  data = safetensors.numpy.save(arrays, metadata={'format': 'pt'})
  (folder / f'{STEMS[kind]}.safetensors').write_bytes(data)
  text = json.dumps(configs.of_module(kind, net), indent=2)
  (folder / 'config.json').write_text(text + '\n')


# Pipelines ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class StableDiffusion:
  """What a pipeline's folder has; `params` by the names of its networks."""

  unet: UNet
  vae: VAE | Pixels
  text_encoder: ClipText
  params: dict[str, Params]
  tokenizer: tokenizer.Tokenizer
  schedule: NoiseSchedule
  sampler: str
  """A name in samplers.SAMPLERS."""

  @property
  def networks(self) -> tuple[Any, ...]:
    """Those of STABLE_DIFFUSION."""
    return self.unet, self.vae, self.text_encoder

  @property
  def kinds(self) -> list[str]:
    """Of the networks that have weights."""
    pairs = zip(STABLE_DIFFUSION, self.networks, strict=True)
    return [kind for kind, net in pairs if not isinstance(net, Pixels)]

  @functools.cached_property
  def _encoded(self) -> Any:
    return jax.jit(lambda params, ids: self.text_encoder.apply({'params': params}, ids))

  def context(self, texts: Sequence[str]) -> jax.Array:
    """Texts -> what the UNet attends to, [B, L, D]."""
    return self._encoded(self.params['text_encoder'], self.tokenizer(texts))


def open_pipeline(
  folder: str | pathlib.Path, *, sampler: str | None = None, compute: Compute = PLAIN
) -> StableDiffusion:
  """The networks of a folder of Stable Diffusion 1.x, in the library's layout, without parameters.

  For text to image or inpainting; where model_index.json says that there is no autoencoder, in
  pixels. sampler: a name, or None for the file's. The autoencoder computes in float32 whatever
  `compute` says. Raises UserError for what is missing, and for configs that cannot be honoured.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise UserError(f'no folder {folder}\n  give one in the layout of diffusers, with unet/')
  nets: dict[str, Any] = {}
  for kind in ('unet', 'text_encoder') if in_pixels(folder) else ('unet', 'vae', 'text_encoder'):
    path = folder / kind / 'config.json'
    how = dataclasses.replace(compute, dtype=None) if kind == 'vae' else compute
    nets[kind] = configs.module(kind, files.read_json(path), path, how)
    weight_file(kind, folder / kind)
  path = folder / 'scheduler' / 'scheduler_config.json'
  entries = files.read_json(path) | ({} if 'vae' in nets else {'clip_sample': False})
  schedule, name = configs.schedule(entries, path, sampler)
  if 'vae' not in nets:
    schedule = dataclasses.replace(schedule, clip=PIXEL_SCALE)
  words = tokenizer.read(folder / 'tokenizer')
  nets = {'vae': Pixels(max(1, math.isqrt(nets['unet'].out_channels // 3)))} | nets
  check_parts(folder, nets['unet'], nets['vae'], nets['text_encoder'], words)
  return StableDiffusion(**nets, params={}, tokenizer=words, schedule=schedule, sampler=name)


def load_pipeline(
  folder: str | pathlib.Path,
  *,
  sampler: str | None = None,
  dtype: Any = np.float32,
  compute: Compute = PLAIN,
) -> StableDiffusion:
  """`open_pipeline` with its parameters, of `dtype` but for the autoencoder's, which are float32.

  All configs are read before the first weight. Raises UserError.
  """
  opened, folder = open_pipeline(folder, sampler=sampler, compute=compute), pathlib.Path(folder)
  params = {}
  for kind in STABLE_DIFFUSION:
    net = getattr(opened, kind)
    where, state = ('', {}) if isinstance(net, Pixels) else read(kind, folder / kind)
    kept = np.float32 if kind == 'vae' else dtype
    params[kind] = {} if isinstance(net, Pixels) else fitted(kind, net, state, where, kept)
  return dataclasses.replace(opened, params=params)


def save_pipeline(folder: str | pathlib.Path, pipeline: StableDiffusion) -> None:
  """A pipeline for text to image as `load_pipeline` and the library read it, sampled by DDIM.

  The folder appears when it is complete; one that holds anything else is left alone (UserError).
  """
  folder = pathlib.Path(folder)
  nets = {kind: getattr(pipeline, kind) for kind in STABLE_DIFFUSION}
  index = {'_class_name': PIPELINES[0], 'requires_safety_checker': False}
  index |= {k: [None, None] for k in ('feature_extractor', 'image_encoder', 'safety_checker')}
  index |= {'scheduler': ['diffusers', 'DDIMScheduler']}
  index |= {'tokenizer': ['transformers', 'CLIPTokenizer']}
  for kind, net in nets.items():
    library = 'transformers' if kind == 'text_encoder' else 'diffusers'
    there = not isinstance(net, Pixels)
    index[kind] = [library, configs.TABLES[kind].class_name] if there else [None, None]
  with writing(folder), folders.replaced(folder, OURS) as part:
    (part / OURS).write_text('{}\n')
    for kind, net in nets.items():
      if not isinstance(net, Pixels):
        _write(kind, part / kind, net, pipeline.params[kind])
    tokenizer.save(part / 'tokenizer', pipeline.tokenizer)
    (part / 'scheduler').mkdir()
    entries = configs.of_schedule(pipeline.schedule)
    (part / 'scheduler' / 'scheduler_config.json').write_text(json.dumps(entries, indent=2) + '\n')
    (part / 'model_index.json').write_text(json.dumps(index, indent=2) + '\n')


def in_pixels(folder: pathlib.Path) -> bool:
  """Whether model_index.json says that there is no autoencoder. Raises UserError where it is of
  another kind of pipeline."""
  path = folder / 'model_index.json'
  if not path.exists():
    return False
  index = files.read_json(path)
  name = index.get('_class_name')
  if name not in PIPELINES:
    raise UserError(f'{path} is of a {name}\n{nearest(str(name), PIPELINES)}\n  {configs.READ}')
  return index.get('vae') == [None, None]


def check_parts(
  folder: Any, unet: UNet, vae: VAE | Pixels, text_encoder: ClipText, words: tokenizer.Tokenizer
) -> None:
  """Raises UserError where a pipeline's parts do not fit together."""
  wanted = vae.latent_channels
  known = (wanted, 2 * wanted + 1)  # inpainting: a mask and the masked picture's latents
  if unet.in_channels not in known or unet.out_channels != wanted:
    raise UserError(
      f'{folder}: a UNet of {unet.in_channels} input and {unet.out_channels} output channels\n'
      f'  {known[0]} (text to image) or {known[1]} (inpainting) and {wanted} are expected'
    )
  for what, one, other in (
    ("text encoder's width", text_encoder.hidden_size, unet.cross_attention_dim),
    ("tokenizer's length", words.length, text_encoder.max_position_embeddings),
  ):
    if one != other:
      raise UserError(f'{folder}: the {what} is {one}, the next part takes {other}')
  if max(words.vocabulary.values()) >= text_encoder.vocab_size:
    raise UserError(f'{folder}: the tokenizer has more tokens than the text encoder knows')
