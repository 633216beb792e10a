"""Degrees of freedom of Student's t by maximum likelihood."""

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import digamma, gammaln, polygamma

#: Degrees of freedom above which no tail is seen.
MOST = 100.0


def student_index(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """ν of centred values with a free scale, and its error by the information of the fitted law.

    Infinite, with an error of NaN, above 100.
    """
    unit = np.median(np.abs(values))
    if not unit > 0:
        raise ValueError("samples must differ from their centre, got half of them equal to it")
    squares = (values / unit) ** 2

    def loss(place: Float[np.ndarray, " 2"]) -> tuple[float, Float[np.ndarray, " 2"]]:
        nu, scale = np.exp(place[0]), np.exp(2 * place[1])
        part = squares / (nu * scale)
        logs = np.log1p(part)
        weight = part / (1 + part)
        value = (
            gammaln((nu + 1) / 2) - gammaln(nu / 2) - place[0] / 2 - place[1]
            - (nu + 1) / 2 * logs.mean()
        )  # fmt: skip
        by_nu = (digamma((nu + 1) / 2) - digamma(nu / 2)) / 2 - 0.5 / nu - logs.mean() / 2
        by_nu += (nu + 1) / (2 * nu) * weight.mean()
        return -value, -np.array([nu * by_nu, (nu + 1) * weight.mean() - 1])

    bounds = [(np.log(1e-2), np.log(10 * MOST)), (-20.0, 20.0)]
    found = minimize(loss, np.log([3.0, 1.0]), jac=True, bounds=bounds, method="L-BFGS-B")
    nu = float(np.exp(found.x[0]))
    if nu > MOST:
        return np.inf, np.nan
    # Expected information of (ν, ln scale) of one value; the location is as good as known.
    by_nu = (polygamma(1, nu / 2) - polygamma(1, (nu + 1) / 2)) / 4
    by_nu -= (nu + 5) / (2 * nu * (nu + 1) * (nu + 3))
    cross = 2 / ((nu + 1) * (nu + 3))
    by_scale = 2 * nu / (nu + 3)
    return nu, float(1 / np.sqrt(len(values) * (by_nu - cross**2 / by_scale)))
