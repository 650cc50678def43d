"""What configs of generation by diffusion may say: configs/genval_style.py, configs/genval_ood.py.

The published programs (arXiv 2312.09231) have faults; each is mended, and an option named for it
brings it back. `reference` brings back all of them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from car_jax.options import Count, Group, Positive, Range, Share

Side = Annotated[int, Range(8, 8192)]
Steps = Annotated[int, Range(1, 1000)]
Guidance = Annotated[float, Range(0.0, 100.0)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Half = Annotated[float, Range(0.01, 0.5)]

OBJECTS = (
  *('table', 'chair', 'sofa', 'mirror', 'armchair', 'desk', 'lamp', 'bathtub', 'box'),
  *('refrigerator', 'pillow', 'toilet', 'book', 'bench', 'computer', 'arcade machine', 'bottle'),
  *('bag', 'microwave', 'vase', 'plate', 'radiator', 'clock', 'baby', 'billboard', 'graffiti'),
  *('lion', 'elephant', 'giraffe', 'tiger', 'penguin', 'dolphin', 'kangaroo', 'gorilla'),
  *('cheetah', 'polar bear', 'koala', 'zebra', 'hippopotamus', 'chimpanzee', 'flamingo', 'panda'),
)
"""Those that were published."""
DOMAINS = {name: name for name in ('fog', 'night', 'rain', 'snow')}


@dataclasses.dataclass(frozen=True)
class SceneOptions(Group):
  """config.scenes: scenes and their label ids; drawn where neither file nor folder is named."""

  root: str = ''
  """Folder laid out as Cityscapes; with `captions` that which their paths are relative to."""
  split: str = 'val'
  """Its part."""
  captions: str = ''
  """A file of JSON lines with image, conditioning_image, text; see docs/generate.md."""
  height: Annotated[int, Range(32, 1024)] = 256
  """Rows of a drawn scene, an even number; it has twice as many columns."""
  count: Positive = 500
  """Drawn scenes to choose from."""
  seed: Count = 0
  """Other drawn scenes."""


@dataclasses.dataclass(frozen=True)
class Generation(Group):
  """What both kinds of sets share."""

  weights: str = ''
  """Folder of Stable Diffusion 1.x in diffusers' layout, with unet/, vae/, text_encoder/ ..."""
  scenes: SceneOptions = dataclasses.field(default_factory=dict)  # type: ignore[assignment]
  """Where scenes come from."""
  count: Positive = 512
  """Images of each domain or object; --start and --stop choose some of them."""
  seed: Seed = 0
  """Of all that is drawn; an image depends on this and its own number alone."""
  sampler: Literal['ddim', 'pndm', 'dpmpp_2m'] | None = 'ddim'
  """How noise is removed; None for what the folder's scheduler says."""
  size: Side = 512
  """Side, or the shorter one, of the picture that the net sees."""
  dtype: Literal['float32', 'bfloat16', 'float16'] | None = None
  """Of parameters and activations; None: bfloat16 on accelerators, float32 on CPUs."""
  batch: Positive = 1
  """Images that an accelerator makes at once; a CPU makes one at a time."""
  reference: bool = False
  """As the published programs, with all the faults below."""
  genval_steps: bool = False
  """A fault: timesteps are range(0, 1000, 1000 // steps) + 1, more than `steps` or too many."""

  FAULTS: ClassVar[dict[str, Any]] = {'genval_steps': True}
  UNRECORDED: ClassVar[tuple[str, ...]] = ('weights', 'scenes', 'count', 'seed', 'batch')
  UNRECORDED += ('reference',)  # its faults are


@dataclasses.dataclass(frozen=True)
class StyleOptions(Generation):
  """Scenes repainted in another domain by a ControlNet that sees their labels."""

  controlnet: str = ''
  """Folder of a ControlNet in diffusers' layout, or a checkpoint file of GenVal's own code."""
  domains: Mapping[str, Any] = dataclasses.field(default_factory=lambda: dict(DOMAINS))
  """Name -> what the prompt says after 'in', any text."""
  steps: Steps = 25
  """Steps of the sampler."""
  guidance: Guidance = 8.0
  """How much the prompt counts; 1 for as it was trained."""
  strength: Annotated[float, Range(0.0, 10.0)] = 1.0
  """How much the ControlNet adds."""
  crop: Literal['random_square', 'full'] = 'random_square'
  """A square of the shorter side at a random place, or the whole scene."""
  trailing_comma: bool = False
  """A fault: prompts end in a comma and a blank."""
  truncated: bool = False
  """A fault: colours are rounded down, in originals too."""
  aliased: bool = False
  """A fault: originals are shrunk by leaving out pixels."""

  FAULTS = Generation.FAULTS | dict(trailing_comma=True, truncated=True, aliased=True)
  UNRECORDED = (*Generation.UNRECORDED, 'controlnet', 'domains')


@dataclasses.dataclass(frozen=True)
class RefineOptions(Group):
  """config.refine: a second pass of the same net, which blends the object with what is around."""

  area: Literal['window', 'full', 'none'] = 'window'
  """A window twice as large as the box, of which the box is kept; the whole image, none of whose
  pixels stays as it was (published); or no second pass."""
  steps: Steps = 50
  """Steps of the sampler, of which a share `strength` is made."""
  strength: Annotated[float, Range(1e-3, 1.0)] = 0.65
  """From how much noise it starts."""
  guidance: Guidance = 7.5
  """How much the prompt counts."""
  bare_prompt: bool = False
  """A fault: the prompt is the object's name alone."""


@dataclasses.dataclass(frozen=True)
class MaskOptions(Group):
  """config.masks: how the object is found, and its image rejected where it is not."""

  method: Literal['difference', 'sam3', 'grounded'] = 'difference'
  """What has changed, which needs no weights; SAM 3; or GroundingDINO and SAM, as published."""
  grabcut: bool = False
  """Of difference: the outline follows edges."""
  prior: bool = False
  """Of difference: counts changes by the net's attention to the object's name."""
  sam3: str = 'sam3_pcs'
  """Preset or folder of SAM 3, as keras-hub takes them."""
  least_score: Share = 0.5
  """Of SAM 3: less is no object."""
  detector: str = 'IDEA-Research/grounding-dino-tiny'
  """Folder of GroundingDINO, as transformers takes them."""
  segmenter: str = 'facebook/sam-vit-huge'
  """Folder of SAM, as transformers takes them."""
  box_threshold: Share = 0.25
  """Of GroundingDINO: the least confidence of a detection, of which the surest is taken."""
  swapped_channels: bool = False
  """A fault: both nets see red and blue exchanged."""


@dataclasses.dataclass(frozen=True)
class ObjectOptions(Generation):
  """Objects inpainted into scenes."""

  objects: tuple[str, ...] = OBJECTS
  """What is put in, each `count` times."""
  boxes: tuple[Half, Half] = (0.25, 0.5)
  """The least and the largest side of a box, in heights of the scene."""
  road_only: bool = False
  """The middle of a box is on road or pavement."""
  steps: Steps = 50
  """Steps of the sampler."""
  guidance: Guidance = 15.0
  """How much the prompt counts."""
  refine: RefineOptions = dataclasses.field(default_factory=dict)  # type: ignore[assignment]
  """The second pass."""
  masks: MaskOptions = dataclasses.field(default_factory=dict)  # type: ignore[assignment]
  """The object's mask."""
  always_an: bool = False
  """A fault: 'an' before every object."""
  blurred_mask: bool = False
  """A fault: the mask is blurred first, which only rounds its corners."""

  FAULTS = Generation.FAULTS | dict(always_an=True, blurred_mask=True)
  FAULTS |= {'refine.area': 'full', 'refine.bare_prompt': True, 'masks.swapped_channels': True}
  UNRECORDED = (*Generation.UNRECORDED, 'objects')
