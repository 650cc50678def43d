"""What scores of failing images say. A risk is one minus the likeliest classes' Dice score."""

from car_jax.metrics.base import About
from car_jax.metrics.texts import FAILING

OF_IMAGES = {
  'image_aurc': About(
    'AURC of images',
    'low',
    'Hand the least sure images to a person first: the mean risk (one minus Dice) of the images '
    'that are kept, over all shares kept. It rewards good maps and a good order together; '
    'confidences without information have the mean risk.',
    FAILING,
    True,
  ),
  'image_eaurc': About(
    'e-AURC of images',
    'low',
    'AURC of images above that of the best order, by their true risk: what a better confidence '
    'could still win.',
    FAILING,
    True,
  ),
  'image_augrc': About(
    'AUGRC of images',
    'low',
    'The risk (one minus Dice) that a random image brings in where it is kept, over all shares '
    'kept (arXiv 2407.01032). Confidences without information have half the mean risk; published '
    '1000 times as large.',
    FAILING,
    True,
  ),
  'failure_auroc': About(
    'AUROC of failures',
    'high',
    'Draw an image that fails and one that does not: how often is the failing one less sure? 50 % '
    'is chance. Not defined where all images fail, or none does.',
    FAILING,
    True,
  ),
  'image_spearman': About(
    'rank correlation with Dice',
    'high',
    "Spearman's coefficient of an image's confidence and its Dice score: 1 where the order is the "
    'same, 0 without information.',
    FAILING,
  ),
}
# higher where the model is surer
CONFIDENCES = {
  'mean': 'minus the mean entropy of its pixels',
  'patch10': 'minus the largest mean entropy of any 10 x 10 pixels',
  'above0.9': 'minus the mean entropy of the tenth of its pixels that have most of it',
  'foreground': 'minus the mean entropy where a scored class is predicted',
  'boundary4': 'minus the mean entropy beside borders of predicted classes, in a band of 4 pixels',
  'mass_ratio': 'minus the share of its entropy that lies on edges of the map of entropy',
  'pairwise_dice': 'the mean Dice score of two of its samples',
  'soft_dice': 'the Dice score that the model expects of its own map (arXiv 2402.10665)',
}
