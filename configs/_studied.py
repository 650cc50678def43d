# ruff: noqa: E501 (a table)
"""The segmenters that RELIS (arXiv 2303.11298) and GenVal (arXiv 2312.09231) study: files, scores.

configs/relis.py and configs/genval.py name them. Scores and files are those of mmsegmentation's and
detectron2's model zoos. What the studies' authors trained themselves has no published score; its
file is known by the name of its config, or of the model.
"""

from typing import Any

from car_jax.configs._published import weights
from car_jax.errors import UserError

# Name, the studies (R, G), variant of configs/segmenters_cityscapes.py, millions of parameters,
# published mIoU on Cityscapes' validation images in %, file
TABLE = """
SETR-PUP         RG setr_pup               309.60 79.21 setr_pup_vit-large_8x1_768x768_80k_cityscapes_20211122_155115-f6f37b8f.pth
SETR-Naive       RG setr_naive             305.73 78.10 setr_naive_vit-large_8x1_768x768_80k_cityscapes_20211123_000505-20728e80.pth
SETR-MLA         RG setr_mla               310.66 77.00 setr_mla_vit-large_8x1_768x768_80k_cityscapes_20211119_101003-7f8dccbe.pth
SegFormer-B0     RG segformer_b0             3.72 76.54 segformer_mit-b0_8x1_1024x1024_160k_cityscapes_20211208_101857-e7f88502.pth
SegFormer-B1     RG segformer_b1            13.68 78.56 segformer_mit-b1_8x1_1024x1024_160k_cityscapes_20211208_064213-655c7b3f.pth
SegFormer-B2     RG segformer_b2            24.73 81.08 segformer_mit-b2_8x1_1024x1024_160k_cityscapes_20211207_134205-6096669a.pth
SegFormer-B3     RG segformer_b3            44.60 81.94 segformer_mit-b3_8x1_1024x1024_160k_cityscapes_20211206_224823-a8f8a177.pth
SegFormer-B4     RG segformer_b4            61.37 81.89 segformer_mit-b4_8x1_1024x1024_160k_cityscapes_20211207_080709-07f6c333.pth
SegFormer-B5     RG segformer_b5            81.97 82.25 segformer_mit-b5_8x1_1024x1024_160k_cityscapes_20211206_072934-87a052ec.pth
DLV3+ResNet50    RG deeplabv3plus_r50       41.23 79.83 deeplabv3plus_r50-d8_769x769_80k_cityscapes_20200606_210233-0e9dfdc4.pth
DLV3+ResNet101   RG deeplabv3plus_r101      60.22 80.98 deeplabv3plus_r101-d8_769x769_80k_cityscapes_20200607_000405-a7573d20.pth
DLV3+ResNet18    RG deeplabv3plus_r18       12.32 76.26 deeplabv3plus_r18-d8_769x769_80k_cityscapes_20201226_083346-f326e06a.pth
Segmenter        RG segmenter              333.82     - segmenter_vit-l_mask_4x1_769x769_160k_lr0.005_cityscapes*
ConvNext         RG upernet_convnext_large 233.12     - upernet_convnext_large_fp16_769x769_80k_cityscapes*
UpperNetR18      RG upernet_r18             40.81 76.02 upernet_r18_512x1024_80k_cityscapes_20220614_110712-c89a9188.pth
UpperNetR50      RG upernet_r50             64.05 79.39 upernet_r50_769x769_80k_cityscapes_20200607_005107-82ae7d15.pth
UpperNetR101     RG upernet_r101            83.04 80.10 upernet_r101_769x769_80k_cityscapes_20200607_001014-082fc334.pth
ConvNext-B-In1K  RG upernet_convnext_base  120.82     - upernet_convnext_base_in1k_fp16_769x769_80k_cityscapes*
ConvNext-B-In21K RG upernet_convnext_base  120.82     - upernet_convnext_base_in21k_fp16_769x769_80k_cityscapes*
BiT-R50x1-In1K   R  upernet_bit_r50         64.02     - resnet50x1_in1k*
BiT-R50x1-In21K  R  upernet_bit_r50         64.02     - resnet50x1_in21k*
Mask2Former      R  mask2former_swin_large 215.46 83.30 model_final_17c1ee.pkl
SegFormer-B5_v2  RG segformer_b5_whole      81.97     - segformer_mit-b5_4x1_1024x1024_80k_cityscapes_v2*
SegFormer-B5_v3  RG segformer_b5_whole      81.97     - segformer_mit-b5_4x1_1024x1024_80k_cityscapes_v3*
Segmenter_short  R  segmenter              333.82     - segmenter_vit-l_mask_4x1_769x769_80k_cityscapes*
MaskFormer       R  maskformer_r101c        60.39 79.70 model_final_4f8ff9.pkl
SwinLarge        RG upernet_swin_large     231.88     - upernet_swin_large_patch4_window7_512x512_pretrain_224x224_22K_160k_cityscapes*
ANN-R50          G  ann_r50                 43.86 78.88 ann_r50-d8_769x769_80k_cityscapes_20200607_044426-cc7ff323.pth
ANN-R101         G  ann_r101                62.86 78.80 ann_r101-d8_769x769_80k_cityscapes_20200607_013713-a9d4be8d.pth
APCNet-R50       G  apcnet_r50              53.99 78.79 apcnet_r50-d8_769x769_80k_cityscapes_20201214_115718-7ea9fa12.pth
APCNet-R101      G  apcnet_r101             72.98 78.45 apcnet_r101-d8_769x769_80k_cityscapes_20201214_115716-a7fbc2ab.pth
BiSeNetV1-R18    G  bisenetv1_r18           13.28 74.37 bisenetv1_r18-d32_in1k-pre_4x4_1024x1024_160k_cityscapes_20210905_220251-8ba80eff.pth
BiSeNetV1-R50    G  bisenetv1_r50           56.87 77.68 bisenetv1_r50-d32_in1k-pre_4x4_1024x1024_160k_cityscapes_20210917_234628-8b304447.pth
BiSeNetV2-FCN    G  bisenetv2                3.36 73.21 bisenetv2_fcn_4x4_1024x1024_160k_cityscapes_20210902_015551-bcf10f09.pth
CCNet-R50        G  ccnet_r50               47.46 79.29 ccnet_r50-d8_769x769_80k_cityscapes_20200617_010421-73eed8ca.pth
CCNet-R101       G  ccnet_r101              66.45 79.45 ccnet_r101-d8_769x769_80k_cityscapes_20200618_011502-ad3cd481.pth
GCNet-R50        G  gcnet_r50               47.27 78.68 gcnet_r50-d8_769x769_80k_cityscapes_20200619_092516-4839565b.pth
GCNet-R101       G  gcnet_r101              66.26 79.18 gcnet_r101-d8_769x769_80k_cityscapes_20200619_092628-8e043423.pth
ICNet-R18        G  icnet_r18               24.87 74.43 icnet_r18-d8_in1k-pre_832x832_160k_cityscapes_20210926_052702-619c8ae1.pth
ICNet-R50        G  icnet_r50               47.53 76.29 icnet_r50-d8_in1k-pre_832x832_160k_cityscapes_20210926_042715-ce310aea.pth
ICNet-R101       G  icnet_r101              66.52 76.15 icnet_r101-d8_in1k-pre_832x832_160k_cityscapes_20210925_232612-9484ae8a.pth
MobileNetV3      G  mobilenetv3              3.28 69.54 lraspp_m-v3-d8_512x1024_320k_cityscapes_20201224_220337-cfe8fb07.pth
PSPNet-R18       G  pspnet_r18              12.64 75.90 pspnet_r18-d8_769x769_80k_cityscapes_20201225_021458-3deefc62.pth
PSPNet-R50       G  pspnet_r50              46.61 79.59 pspnet_r50-d8_769x769_80k_cityscapes_20200606_210121-5ccf03dd.pth
PSPNet-R101      G  pspnet_r101             65.60 79.77 pspnet_r101-d8_769x769_80k_cityscapes_20200606_225055-dba412fa.pth
SemFPN-R50       G  semfpn_r50              28.50 74.52 fpn_r50_512x1024_80k_cityscapes_20200717_021437-94018a0d.pth
SemFPN-R101      G  semfpn_r101             47.49 75.80 fpn_r101_512x1024_80k_cityscapes_20200717_012416-c5800d4c.pth
"""
WHOLE = dict(
  convention='all 500 validation images of Cityscapes whole, one scale, not mirrored',
  tolerance=0.005,
)
ZOO = dict(mmseg='model zoo of mmsegmentation', detectron2='model zoos of detectron2’s projects')
DETECTRON2 = ('Mask2Former', 'MaskFormer')
CONDITIONS = ('fog', 'night', 'rain', 'snow')


def rows():
  """Name, studies, variant, parameters, mIoU or None, file."""
  for name, studies, variant, parameters, miou, file in map(str.split, TABLE.strip().splitlines()):
    yield name, studies, variant, float(parameters), None if miou == '-' else float(miou), file


def models(study, runs):
  """Name -> entry of config.models, of the runs in a folder."""
  return {row[0]: entry(row, runs) for row in rows() if study in row[1]}


def entry(row, runs):
  name, _, variant, parameters, miou, file = row
  importer = 'detectron2' if name in DETECTRON2 else 'mmseg'
  published: dict[str, Any] = dict(
    files=(file, f'{name}_ckpt.pth', f'{name}.pth'), importer=importer
  )
  published |= dict(config=f'configs/segmenters_cityscapes.py:{variant}')
  scores = (
    {} if miou is None else {'miou': weights('miou', round(miou / 100, 6), ZOO[importer], **WHOLE)}
  )
  published |= dict(scores=scores, parameters=parameters)
  return dict(path=f'{runs}/{name}', published=published)


def cityscapes(c):
  """Images as in training, for tests and for calibration."""
  data = dict(name='cityscapes/scale1-splits_reliability', eval_batch=1)
  c.sets = {'Cityscapes': dict(data=data, split='test', role='in-domain')}
  c.calibrate_on = dict(data=data, split='calibration')
  c.calibrators = dict(temperature='temperature', ece_grid='ece_grid', clusters8='clusters8')
  c.missing = 'skip'


def acdc(c):
  """Four kinds of weather, and all of it."""
  data = dict(name='acdc/scale1', eval_batch=1)
  for k in CONDITIONS:
    c.sets[f'ACDC {k}'] = dict(data=data, split=f'{k}_test', condition=k)
  c.pools = {'ACDC': tuple(f'ACDC {k}' for k in CONDITIONS)}


def folder(variant, default):
  """The folder of runs that the config's variant names."""
  if variant.endswith('.py'):
    raise UserError(f'{variant!r} is no folder of runs; such as {default}')
  return variant or default
