"""How likely a comparison is to see errors of stated sizes, before or after it is made."""

import numpy as np
import pandas as pd
from scipy.stats import norm
from scipy.stats import t as student

from statsgd.comparison.spread import TAIL_LEVEL
from statsgd.comparison.statistics import student_quantile

#: Degrees of freedom of the tails, and what else is reckoned with.
_DEGREES, _VARIANCE, _CORRELATION, _WELLS = 5.0, 1.1, 0.2, 0.05
#: Where tails are compared: one point in fifty is farther out.
_LEVEL = TAIL_LEVEL


def power(endpoints: int, tail: float) -> pd.DataFrame:
    """Probability that an interval of error `tail` on either side leaves out perfect agreement.

    For `endpoints` independent points of a normal law (of two equal wells in the last row): a
    variance 10 % too large, a correlation of 0.2 that the law does not know, Student tails of 5
    degrees of freedom at the law's variance, 5 % of the weight moved between wells. Standard errors
    are those of large samples. Source: derived.
    """
    root = np.sqrt(max(endpoints, 1))
    quantile = norm.isf((1 - _LEVEL) / 2)
    heavy = student.isf((1 - _LEVEL) / 2, _DEGREES) * np.sqrt((_DEGREES - 2) / _DEGREES)
    density = student.pdf(student.isf((1 - _LEVEL) / 2, _DEGREES), _DEGREES)
    density *= np.sqrt(_DEGREES / (_DEGREES - 2))
    cases = (
        ("a variance 10 % too large", "variance ratio", np.log(_VARIANCE), np.sqrt(2)),
        # Half of the endpoints measure the direction that the others find.
        ("a correlation of 0.2", "largest joint variance ratio", np.log1p(_CORRELATION), 2.0),
        (
            "Student tails of 5 degrees",
            "tail ratio",
            np.log(heavy / quantile),
            np.sqrt(_LEVEL * (1 - _LEVEL)) / (2 * density * heavy),
        ),
        ("5 % moved between wells", "well share", _WELLS, 0.5),
    )
    reach = student_quantile(tail, max(endpoints, 2))
    return pd.DataFrame(
        {
            "error": [name for name, *_ in cases],
            "statistic": [statistic for _, statistic, *_ in cases],
            "power": [float(norm.sf(reach - size * root / error)) for *_, size, error in cases],
        }
    )
