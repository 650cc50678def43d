"""How a config says what is published of it: scores of its report's data, with their sources.

Numbers are in the unit of reports: a share where a paper prints per cent. What could not be read in
a paper or in a table that quotes it is not here.
"""

CCDM = 'as quoted by Zbinden et al., Stochastic segmentation with CCDM, ICCV 2023'
FOUR_READERS = 'IoU of the nodule, all pairs counted, pairs of a sample with itself too; two empty'
FOUR_READERS += ' masks agree'


def publish(c, **scores):
  """Sets c.published to entries dict(score=, value=, ..) of the report's data and split.

  A report that lists its scores has these, too.
  """
  of = dict(data=c.data.name, split=c.report.split)
  if 'metrics' in c.report:
    c.report.metrics = tuple(
      dict.fromkeys((*c.report.metrics, *(s['score'] for s in scores.values())))
    )
  c.published = {name: of | score for name, score in scores.items()}


def paper(score, value, spread=None, source='', tolerance=0.01, convention=''):
  """A number of trainings as described."""
  return dict(
    score=score,
    value=value,
    spread=spread,
    source=source,
    convention=convention,
    tolerance=tolerance,
  )


def papers(source, **values):
  """Numbers of trainings by their scores, of one source and with four readers."""
  how = dict(source=source, convention=FOUR_READERS)
  return {score: paper(score, value, **how) for score, value in values.items()}


def weights(score, value, source='', tolerance=0.003, convention=''):
  """A number of weights that were released: but for draws it can be met."""
  return paper(score, value, None, source, tolerance, convention) | dict(of='weights')
