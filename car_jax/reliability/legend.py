"""What each metric of a study says, in words for a reader who meets it for the first time.

They become the study's `metrics`, of which its page and tables are made.
"""

from car_jax.reliability.view import Metric

GROUPS = ('accuracy', 'calibration', 'misclassification', 'unknown objects', 'image-level')
_ACCURACY, _CALIBRATION, _WRONG, _UNKNOWN, _IMAGE = GROUPS

KNOWN = {
  m.name: m
  for m in (
    Metric(
      *('miou', 'mIoU', 'high', True, _ACCURACY),
      'For each class, the overlap of predicted and true region divided by their union, over all '
      'images together; then the mean over classes. A rare class counts as much as the road.',
    ),
    Metric(
      *('pixel_accuracy', 'pixel accuracy', 'high', True, _ACCURACY),
      'The share of labelled pixels whose class is right. Large classes decide it.',
    ),
    Metric(
      *('mean_accuracy', 'mean class accuracy', 'high', True, _ACCURACY),
      "The share that is right among each class's pixels, averaged over the classes that occur.",
    ),
    Metric(
      *('ece', 'ECE', 'low', True, _CALIBRATION),
      'Expected calibration error: sort pixels into 15 bins by confidence; in each, how far is the '
      'mean confidence from the share that is right? The mean of these gaps, weighted by pixels. '
      '0 means that of pixels called 80 % sure, 80 % are right.',
    ),
    Metric(
      *('ece_entropy', 'ECE of entropy', 'low', True, _CALIBRATION),
      'The same with one minus the entropy, as a share of its maximum, in place of the '
      'probability.',
    ),
    Metric(
      *('adaptive_ece', 'adaptive ECE', 'low', True, _CALIBRATION),
      'The same with bins that hold equally many pixels. It sees more where most pixels are, which '
      'is close to full confidence.',
    ),
    Metric(
      *('adaptive_ece_relis', "adaptive ECE, RELIS' number", 'low', True, _CALIBRATION),
      'Adaptive ECE of the published code, for comparison with its tables: pixels of the very '
      'lowest confidence are left out, however many they are.',
    ),
    Metric(
      *('ks', 'KS error', 'low', True, _CALIBRATION),
      'The largest gap between confidence and correctness summed up from the least confident pixel '
      'on. It needs no bins.',
    ),
    Metric(
      *('mce', 'MCE', 'low', True, _CALIBRATION),
      'The gap of the worst bin alone, however few pixels it holds. It is noisy.',
    ),
    Metric(
      *('classwise_ece', 'class-wise ECE', 'low', True, _CALIBRATION),
      "ECE of every class's own probability, averaged over the classes that occur.",
    ),
    Metric(
      *('classwise_adaptive_ece', 'class-wise adaptive ECE', 'low', True, _CALIBRATION),
      "Adaptive ECE of every class's own probability, averaged over the classes that occur.",
    ),
    Metric(
      *('classwise_adaptive_ece_relis', "class-wise adaptive ECE, RELIS' number", 'low', True),
      *(_CALIBRATION, "Adaptive ECE, RELIS' number, of every class's own probability."),
    ),
    Metric(
      *('classwise_ks', 'class-wise KS error', 'low', True, _CALIBRATION),
      "KS error of every class's own probability, averaged over the classes that occur.",
    ),
    Metric(
      *('nll', 'NLL', 'low', False, _CALIBRATION),
      'Negative log-likelihood of the true class, in nats per pixel. It punishes confident errors '
      'most and mixes accuracy with calibration.',
    ),
    Metric(
      *('brier', 'Brier score', 'low', False, _CALIBRATION),
      'Squared distance between the predicted probabilities and the truth, from 0 to 2. Like NLL '
      'it mixes accuracy with calibration, but one wild pixel cannot dominate it.',
    ),
    Metric(
      *('auroc', 'AUROC of errors', 'high', True, _WRONG),
      'Draw a wrong and a right pixel: how often is the wrong one less confident? 50 % is chance, '
      '100 % means that a threshold finds every error.',
    ),
    Metric(
      *('aupr_error', 'AUPR of errors', 'high', True, _WRONG),
      'Precision averaged over recall when errors are searched by low confidence. Chance level is '
      'the error rate itself, so compare models of similar accuracy.',
    ),
    Metric(
      *('aupr_success', 'AUPR of successes', 'high', True, _WRONG),
      'Precision averaged over recall when right pixels are searched by high confidence. Chance '
      'level is the accuracy itself.',
    ),
    Metric(
      *('fpr95', 'FPR95 of errors', 'low', True, _WRONG),
      'If the threshold is set so that 95 % of the errors are flagged, this share of the right '
      'pixels is flagged with them.',
    ),
    Metric(
      *('prr', 'PRR', 'high', True, _WRONG),
      'Prediction rejection ratio: hand the least confident pixels to a person first. 100 % is as '
      'good as knowing the errors, 0 % no better than handing over pixels at random.',
    ),
    Metric(
      *('prr_relis', "PRR, RELIS' number", 'high', True, _WRONG),
      'PRR against the oracle of the published code, for comparison with its tables: the more '
      'errors a model makes, the lower it is for that alone.',
    ),
    Metric(
      *('aurc', 'AURC', 'low', True, _WRONG),
      'Mean error of the pixels that are kept, over all shares kept. It rewards accuracy and a '
      'good order of confidences together.',
    ),
    Metric(
      *('unknown_auroc', 'AUROC of unknown', 'high', True, _UNKNOWN),
      'Draw a pixel of an object that no training class describes and a pixel of a known class: '
      'how often is the unknown one less confident? 50 % is chance.',
    ),
    Metric(
      *('unknown_ap', 'AP of unknown', 'high', True, _UNKNOWN),
      'Precision averaged over recall when unknown objects are searched by low confidence. Chance '
      'level is their share of pixels, which is small.',
    ),
    Metric(
      *('unknown_aupr', 'AUPR of unknown, GenVal', 'high', True, _UNKNOWN),
      'The same by straight lines between thresholds, as GenVal publishes it; a little higher.',
    ),
    Metric(
      *('unknown_fpr95', 'FPR95 of unknown', 'low', True, _UNKNOWN),
      'If 95 % of the unknown pixels are flagged, this share of the known ones is flagged too.',
    ),
    Metric(
      *('object_auroc', 'AUROC of objects, per image', 'high', True, _UNKNOWN),
      'As AUROC of unknown within each image that holds an unknown object, then averaged.',
    ),
    Metric(
      *('object_fpr95', 'FPR95 of objects, per image', 'low', True, _UNKNOWN),
      'As FPR95 of unknown within each image that holds an unknown object, then averaged.',
    ),
    Metric(
      *('object_aupr', 'AUPR of objects, per image', 'high', True, _UNKNOWN),
      'As AUPR of unknown, GenVal, within each image that holds one, then averaged.',
    ),
    Metric(
      *('object_aupr_rest', 'AUPR of the rest, per image', 'high', True, _UNKNOWN),
      'As AUPR of objects, with all other pixels as what is searched, by high confidence.',
    ),
    Metric(
      *('object_entropy', 'entropy on objects', 'high', False, _UNKNOWN),
      'Mean entropy on an unknown object in nats, averaged over images.',
    ),
    Metric(
      *('object_entropy_ratio', 'entropy on objects, relative', 'high', False, _UNKNOWN),
      'Mean entropy on an unknown object over the mean elsewhere in the image, averaged over '
      'images. Above 1: the object is noticed at least a little.',
    ),
    Metric(
      *('image_auroc', 'image AUROC', 'high', True, _IMAGE),
      'Draw an image of the known and one of another data set: how often does the other one have '
      'the lower mean confidence? 50 % is chance.',
    ),
  )
}


SCORES = dict(
  entropy='entropy',
  margin='margin of the two likeliest classes',
  max_logit='largest logit',
  energy='energy, log sum exp of the logits',
  disagreement='disagreement of samples, mutual information',
)


def of_score(name: str) -> Metric:
  """'auroc' or 'auroc[entropy]': as KNOWN, but by another score than the largest probability."""
  kind, _, score = name.rstrip(']').partition('[')
  metric = KNOWN[kind]._replace(name=name)
  if not score:
    return metric
  short, _, more = SCORES[score].partition(', ')
  about = f'{metric.about} Confidence is here by {short}{f" ({more})" if more else ""}.'
  return metric._replace(title=f'{metric.title}, by {short}', about=about)
