"""Options of metrics in their names."""

import pytest

from car_jax.errors import UserError
from car_jax.metrics import catalogue


@pytest.mark.parametrize(
  ('name', 'text'),
  [
    ('ece[bins=0]', 'from 1 to 10,000'),
    ('ece[bins=²]', 'from 1 to 10,000'),
    ('ece[bins=100000000]', 'from 1 to 10,000'),
    ('ged16[u,v]', "'v' in 'ged16\\[u,v\\]': its estimator is said twice"),
    ('ged16[fg,all]', 'its classes is said twice'),
  ],
)
def test_options_that_mean_nothing_or_two_things(name, text):
  with pytest.raises(UserError, match=text):
    catalogue.metrics([name], catalogue.Setting(class_names=('a', 'b'), samples=16))
