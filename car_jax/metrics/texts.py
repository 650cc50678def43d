"""What every score says, in words for somebody who meets it for the first time."""

from car_jax.metrics.base import About

GROUPS = (
  'samples and readers',
  'accuracy',
  'calibration',
  'borders',
  'misclassification',
  'unknown objects',
  'image-level',
  'failing images',
)
SAMPLES, ACCURACY, CALIBRATION, BORDERS, _WRONG, UNKNOWN_OBJECTS, _IMAGE, FAILING = GROUPS
_UNKNOWN = UNKNOWN_OBJECTS

# of single pixels, against a label; the others are in reader_texts.py and image_texts.py
ABOUT = {
  'miou': About(
    'mIoU',
    'high',
    'For each class, the overlap of predicted and true region divided by their union, over all '
    'images together; then the mean over classes. A rare class counts as much as the road.',
    ACCURACY,
    True,
  ),
  'pixel_accuracy': About(
    'pixel accuracy',
    'high',
    'The share of labelled pixels whose class is right. Large classes decide it.',
    ACCURACY,
    True,
  ),
  'mean_accuracy': About(
    'mean class accuracy',
    'high',
    "The share that is right among each class's pixels, averaged over the classes that occur.",
    ACCURACY,
    True,
  ),
  'ece': About(
    'ECE',
    'low',
    'Expected calibration error: sort pixels into 15 bins by confidence; in each, how far is the '
    'mean confidence from the share that is right? The mean of these gaps, weighted by pixels. '
    '0 means that of pixels called 80 % sure, 80 % are right.',
    CALIBRATION,
    True,
  ),
  'ece_entropy': About(
    'ECE of entropy',
    'low',
    'The same with one minus the entropy, as a share of its maximum, in place of the probability.',
    CALIBRATION,
    True,
  ),
  'adaptive_ece': About(
    'adaptive ECE',
    'low',
    'The same with bins that hold equally many pixels. It sees more where most pixels are, which '
    'is close to full confidence.',
    CALIBRATION,
    True,
  ),
  'adaptive_ece_relis': About(
    "adaptive ECE, RELIS' number",
    'low',
    'Adaptive ECE of the published code, for comparison with its tables: pixels of the very '
    'lowest confidence are left out, however many they are.',
    CALIBRATION,
    True,
    paper='arXiv:2303.11298',
  ),
  'ks': About(
    'KS error',
    'low',
    'The largest gap between confidence and correctness summed up from the least confident pixel '
    'on. It needs no bins.',
    CALIBRATION,
    True,
    paper='arXiv:2006.12800',
  ),
  'mce': About(
    'MCE',
    'low',
    'The gap of the worst bin alone, however few pixels it holds. It is noisy.',
    CALIBRATION,
    True,
  ),
  'classwise_ece': About(
    'class-wise ECE',
    'low',
    "ECE of every class's own probability, averaged over the classes that occur.",
    CALIBRATION,
    True,
  ),
  'classwise_adaptive_ece': About(
    'class-wise adaptive ECE',
    'low',
    "Adaptive ECE of every class's own probability, averaged over the classes that occur.",
    CALIBRATION,
    True,
  ),
  'classwise_adaptive_ece_relis': About(
    "class-wise adaptive ECE, RELIS' number",
    'low',
    "Adaptive ECE, RELIS' number, of every class's own probability.",
    CALIBRATION,
    True,
    paper='arXiv:2303.11298',
  ),
  'classwise_ks': About(
    'class-wise KS error',
    'low',
    "KS error of every class's own probability, averaged over the classes that occur.",
    CALIBRATION,
    True,
    paper='arXiv:2006.12800',
  ),
  'nll': About(
    'NLL',
    'low',
    'Negative log-likelihood of the true class, in nats per pixel. It punishes confident errors '
    'most and mixes accuracy with calibration.',
    CALIBRATION,
    False,
  ),
  'brier': About(
    'Brier score',
    'low',
    'Squared distance between the predicted probabilities and the truth, from 0 to 2. Like NLL '
    'it mixes accuracy with calibration, but one wild pixel cannot dominate it.',
    CALIBRATION,
    False,
  ),
  'auroc': About(
    'AUROC of errors',
    'high',
    'Draw a wrong and a right pixel: how often is the wrong one less confident? 50 % is chance, '
    '100 % means that a threshold finds every error.',
    _WRONG,
    True,
  ),
  'aupr_error': About(
    'AUPR of errors',
    'high',
    'Precision averaged over recall when errors are searched by low confidence. Chance level is '
    'the error rate itself, so compare models of similar accuracy.',
    _WRONG,
    True,
  ),
  'aupr_success': About(
    'AUPR of successes',
    'high',
    'Precision averaged over recall when right pixels are searched by high confidence. Chance '
    'level is the accuracy itself.',
    _WRONG,
    True,
  ),
  'fpr95': About(
    'FPR95 of errors',
    'low',
    'If the threshold is set so that 95 % of the errors are flagged, this share of the right '
    'pixels is flagged with them.',
    _WRONG,
    True,
  ),
  'prr': About(
    'PRR',
    'high',
    'Prediction rejection ratio: hand the least confident pixels to a person first. 100 % is as '
    'good as knowing the errors, 0 % no better than handing over pixels at random.',
    _WRONG,
    True,
  ),
  'prr_relis': About(
    "PRR, RELIS' number",
    'high',
    'PRR against the oracle of the published code, for comparison with its tables: the more '
    'errors a model makes, the lower it is for that alone.',
    _WRONG,
    True,
    paper='arXiv:2303.11298',
  ),
  'aurc': About(
    'AURC',
    'low',
    'Mean error of the pixels that are kept, over all shares kept. It rewards accuracy and a '
    'good order of confidences together.',
    _WRONG,
    True,
  ),
  'e_aurc': About(
    'e-AURC',
    'low',
    'AURC above that of the best order of the same errors, which has all right pixels first: what '
    'a better order of confidences could still win.',
    _WRONG,
    True,
  ),
  'augrc': About(
    'AUGRC',
    'low',
    'How often a pixel is wrong and yet kept, over all shares kept. Half the '
    'error rate is what confidences without information have; published 1000 times as large.',
    _WRONG,
    True,
    paper='arXiv:2407.01032',
  ),
  'unknown_auroc': About(
    'AUROC of unknown',
    'high',
    'Draw a pixel of an object that no training class describes and a pixel of a known class: '
    'how often is the unknown one less confident? 50 % is chance.',
    _UNKNOWN,
    True,
  ),
  'unknown_ap': About(
    'AP of unknown',
    'high',
    'Precision averaged over recall when unknown objects are searched by low confidence. Chance '
    'level is their share of pixels, which is small.',
    _UNKNOWN,
    True,
  ),
  'unknown_aupr': About(
    'AUPR of unknown, GenVal',
    'high',
    'The same by straight lines between thresholds, as GenVal publishes it; a little higher.',
    _UNKNOWN,
    True,
    paper='arXiv:2312.09231',
  ),
  'unknown_fpr95': About(
    'FPR95 of unknown',
    'low',
    'If 95 % of the unknown pixels are flagged, this share of the known ones is flagged too.',
    _UNKNOWN,
    True,
  ),
  'object_auroc': About(
    'AUROC of objects, per image',
    'high',
    'As AUROC of unknown within each image that holds an unknown object, then averaged.',
    _UNKNOWN,
    True,
    paper='arXiv:2312.09231',
  ),
  'object_fpr95': About(
    'FPR95 of objects, per image',
    'low',
    'As FPR95 of unknown within each image that holds an unknown object, then averaged.',
    _UNKNOWN,
    True,
    paper='arXiv:2312.09231',
  ),
  'object_aupr': About(
    'AUPR of objects, per image',
    'high',
    'As AUPR of unknown, GenVal, within each image that holds one, then averaged.',
    _UNKNOWN,
    True,
    paper='arXiv:2312.09231',
  ),
  'object_aupr_rest': About(
    'AUPR of the rest, per image',
    'high',
    'As AUPR of objects, with all other pixels as what is searched, by high confidence.',
    _UNKNOWN,
    True,
    paper='arXiv:2312.09231',
  ),
  'object_entropy': About(
    'entropy on objects',
    'high',
    'Mean entropy on an unknown object in nats, averaged over images.',
    _UNKNOWN,
    False,
    paper='arXiv:2312.09231',
  ),
  'object_entropy_ratio': About(
    'entropy on objects, relative',
    'high',
    'Mean entropy on an unknown object over the mean elsewhere in the image, averaged over '
    'images. Above 1: the object is noticed at least a little.',
    _UNKNOWN,
    False,
    paper='arXiv:2312.09231',
  ),
  'image_auroc': About(
    'image AUROC',
    'high',
    'Draw an image of the known and one of another data set: how often does the other one have '
    'the lower mean confidence? 50 % is chance.',
    _IMAGE,
    True,
  ),
}
