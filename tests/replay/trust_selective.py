"""Areas under risk-coverage curves and detection of failures against the recorded values."""

import numpy as np

from car_jax.metrics import ranking, selective
from tests.metrics import published
from tests.replay import Replay, replays


@replays('trust', 'selective')
def areas(r: Replay) -> None:
  for case in dict.fromkeys(key.partition('/')[0] for key in r.arrays):
    confidence, risk = r[f'{case}/confidence'], r[f'{case}/risk']
    spec(r, case, confidence, risk)
    fd_shifts(r, f'{case}/fd_shifts', confidence, risk)
    r.check(f'{case}/sfb/spearman', ranking.spearman(confidence, risk), 1e-12)
    if f'{case}/torch_uncertainty/aurc' in r and len(np.unique(confidence)) == len(confidence):
      torch_uncertainty(r, f'{case}/torch_uncertainty', risk)
    if f'{case}/sklearn/auroc_of_failure' in r:
      failures(r, case, confidence, risk)
  r.leave_out('risks that are neither 0 nor 1 have no failures without a limit', '*/sfb/fpr@95tpr')
  r.leave_out('risks that are neither 0 nor 1 have no failures without a limit', '*/sfb/fail*[cr]')
  r.leave_out('depends on the order of images that are equal', '*_permuted', '*_uncertainty/*')
  r.leave_out('ties at their first image, and no last segment', '*/values/*', '*/sfb/*aurc')
  r.leave_out('not a rank', '*/sfb/pearson')


def spec(r: Replay, case: str, confidence: np.ndarray, risk: np.ndarray) -> None:
  curve, best = selective.curve(confidence, risk), selective.curve(-risk, risk)
  r.check(f'{case}/spec/coverages', curve.coverage, 1e-12)
  r.check(f'{case}/spec/selective_risks', curve.selective_risk, 1e-12)
  r.check(f'{case}/spec/generalized_risks', curve.generalized_risk, 1e-12)
  for name in ('aurc', 'augrc'):
    r.check(f'{case}/spec/{name}_mean', getattr(curve, name)('mean'), 1e-12)
    r.check(f'{case}/spec/{name}_mean_optimal', getattr(best, name)('mean'), 1e-12)
    r.check(f'{case}/spec/{name}_trapezoid', getattr(curve, name)('trapezoid'), 1e-12)


def fd_shifts(r: Replay, at: str, confidence: np.ndarray, risk: np.ndarray) -> None:
  """Its best area for 0/1 risks is the limit of many images, and its curves end at coverage 0."""
  curve, found = selective.curve(confidence, risk), selective.areas(confidence, risk, form=FORM)
  r.check(f'{at}/coverages', np.append(curve.coverage[::-1], 0), 1e-12)
  first = curve.selective_risk[:1]
  r.check(f'{at}/selective_risks', np.append(curve.selective_risk[::-1], first), 1e-12)
  r.check(f'{at}/generalized_risks', np.append(curve.generalized_risk[::-1], 0), 1e-12)
  least = found.aurc - found.e_aurc
  if np.all((risk == 0) | (risk == 1)):
    least = published.aurc_limit(risk.mean())
  r.check(f'{at}/aurc', found.aurc, 1e-12)
  r.check(f'{at}/aurc_optimal', least, 1e-12)
  r.check(f'{at}/eaurc', found.aurc - least, 1e-12)
  r.check(f'{at}/aurc_achievable', published.aurc_achievable(confidence, risk), 1e-12)
  r.check(f'{at}/augrc', found.augrc, 1e-12)
  r.check(f'{at}/augrc_optimal', found.augrc - found.e_augrc, 1e-12)
  r.check(f'{at}/eaugrc', found.e_augrc, 1e-12)


FORM = 'trapezoid'


def torch_uncertainty(r: Replay, at: str, risk: np.ndarray) -> None:
  """From the coverage of one image on, in float32; it has no rule for equal confidences."""
  curve = selective.curve(r[f'{at}/top_probability'], risk)
  whole = 1 - 1 / len(risk)
  r.check(f'{at}/aurc', np.trapezoid(curve.selective_risk, curve.coverage) / whole, 1e-6)
  r.check(f'{at}/augrc', np.trapezoid(curve.generalized_risk, curve.coverage) / whole, 1e-6)
  low = curve.coverage[curve.selective_risk <= 0.05]
  r.check(f'{at}/cov_at_5_risk', low[-1] if low.size else np.nan, 1e-6)


def failures(r: Replay, case: str, confidence: np.ndarray, risk: np.ndarray) -> None:
  found = selective.detection(confidence, risk, limit=0.5)
  r.check(f'{case}/sklearn/auroc_of_failure', found.auroc, 1e-12)
  r.check(f'{case}/sklearn/ap_of_failure', found.average_precision, 1e-12)
  r.check(f'{case}/sfb/failauc', found.auroc, 1e-12)
  r.check(f'{case}/sfb/failap_err', found.average_precision, 1e-12)
  sure = ranking.by_value(confidence, risk <= 0.5)  # its positives are what is right
  r.check(f'{case}/sfb/fpr@95tpr', ranking.fpr_at_tpr(*sure, 0.9495), 1e-12)
  right = ranking.average_precision(*ranking.by_value(confidence, risk == 0))
  r.check(f'{case}/sfb/failap_suc', right, 1e-12)
