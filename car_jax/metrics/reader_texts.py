"""What scores of samples and their mean, against several readers, say in words."""

from car_jax.metrics.base import About
from car_jax.metrics.texts import ACCURACY, CALIBRATION, SAMPLES

OF_READERS = {
  'ged': About(
    'Generalised energy distance',
    'low',
    'How far the set of samples is from the set of readers: twice the mean distance of a sample to '
    'a reader, minus the mean distance between two samples, minus that between two readers. The '
    'distance is 1 − IoU. It is small when samples look like the readers and disagree as they do.',
    SAMPLES,
  ),
  'hm_iou': About(
    'Matched IoU',
    'high',
    'Samples and readers are paired one to one in the best possible way; the mean IoU of the '
    'pairs. 1 means that the samples reproduce the readers, each in its right share.',
    SAMPLES,
  ),
  'dice_max': About(
    'Best Dice',
    'high',
    'For each reader, the Dice overlap with the sample that fits best. It rewards finding every '
    'opinion and does not punish wild samples; it can only grow with the number of samples. '
    '[best=readers] is the other way round, for each sample the reader that fits best: it punishes '
    'wild samples and not what is missing. [best=both] is half the sum.',
    SAMPLES,
    paper='arXiv:2304.04745, arXiv:2403.13438',
  ),
  'dice_match': About(
    'Matched Dice',
    'high',
    'Each reader gets a sample of its own, in the best possible way; the mean Dice of the pairs. '
    'Samples that are left over do not count, so it is high where one set has an answer for every '
    'reader. There is none with fewer samples than readers.',
    SAMPLES,
    paper='arXiv:2403.13438',
  ),
  'dice_soft': About(
    'Dice over thresholds',
    'high',
    'Where is the probability of a class above 10 %, and where is the share of readers who say so? '
    'Dice of the two regions, averaged with the same for 30, 50, 70 and 90 %. It rewards '
    'probabilities that follow how many readers agree.',
    SAMPLES,
    paper='arXiv:2403.13438',
  ),
  'pairwise_dice': About(
    'Agreement of samples',
    'match',
    'Mean Dice of two different samples of an image: how sure the model is of it. More is not '
    "better: it should equal the readers' own.",
    SAMPLES,
    paper='arXiv:2406.03323',
  ),
  'crps_area': About(
    'CRPS of the area',
    'low',
    "In pixels: how far the samples' areas are from a reader's on average, less half of how far "
    'they are from each other. It is lowest where areas scatter as the readers do; of a single '
    'segmentation it is the error of its area.',
    SAMPLES,
  ),
  'ci': About(
    'Collective insight',
    'high',
    'Three numbers in one: the share of what any reader marks that some sample marks, the best '
    'Dice for each reader, and whether two samples differ about as much as two readers. For small '
    'objects the last is near 1 for any model.',
    SAMPLES,
    paper='arXiv:2304.04745',
  ),
  'diversity': About(
    'Sample diversity',
    'match',
    'Mean distance (1 − IoU) between two samples of an image. More is not better: it should equal '
    'the distance between two readers, which the row of the readers shows.',
    SAMPLES,
  ),
  'd_ys': About(
    'Sample to reader',
    'low',
    'Mean distance of a sample to a reader.',
    SAMPLES,
  ),
  'd_ss': About(
    'Sample to sample',
    'match',
    'Mean distance between two samples.',
    SAMPLES,
  ),
  'd_yy': About(
    'Reader to reader',
    'match',
    'Mean distance between two readers.',
    SAMPLES,
  ),
  'ece': About(
    'Expected calibration error',
    'low',
    'Pixels are sorted into bins by their predicted probability; the gap between that probability '
    'and the share of readers who agree, averaged over all pixels. 0: a pixel predicted at 30 % is '
    'marked by 30 % of the readers. With [listed] as published with MoSE: see docs/metrics.md.',
    CALIBRATION,
  ),
  'nll': About(
    'Negative log likelihood',
    'low',
    'Minus the log of the probability given to what the readers said, per pixel, in nats. It '
    'punishes confident mistakes hard; probabilities count as at least 1e-7.',
    CALIBRATION,
  ),
  'brier': About(
    'Brier score',
    'low',
    'Squared difference between class probabilities and what a reader said, per pixel. Where '
    'readers differ even perfect probabilities do not reach 0.',
    CALIBRATION,
  ),
  'kl': About(
    'Divergence from the readers',
    'low',
    "KL divergence of the probabilities from the readers' shares, both clamped to 1e-7; used to "
    'choose between calibration nets.',
    CALIBRATION,
  ),
  'miou': About(
    'Mean IoU of the likeliest class',
    'high',
    'Each pixel gets its most probable class; intersection over union with the readers, pooled '
    'over all images, averaged over the scored classes.',
    ACCURACY,
  ),
  'flip_error': About(
    'Flip frequency error',
    'low',
    'Some classes were renamed to a twin with a known probability. How often samples that find the '
    "class use its twin's name, minus how often they should; mean absolute value over the classes. "
    'With [pixels] the shares of both names among all pixels of a class, missed ones included.',
    SAMPLES,
  ),
}
