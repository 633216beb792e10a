"""Currents of the stationary law near a minimum: areas swept, and entropy produced."""

from typing import Any

import numpy as np
from jaxtyping import Float

from statsgd.laws.minimum.heavy_ball import HeavyBallGaussian
from statsgd.laws.minimum.ornstein_uhlenbeck import OrnsteinUhlenbeckLaw
from statsgd.laws.minimum.phase_space import PhaseSpaceGaussian

type LinearLaw = PhaseSpaceGaussian | HeavyBallGaussian | OrnsteinUhlenbeckLaw


def stochastic_area(law: LinearLaw) -> Float[Any, "d d"]:
    """Area ½⟨θ_i dθ_j − θ_j dθ_i⟩ swept per step in each plane of two coordinates, params².

    (η/2)(HV − VH)/(1−β), H including λ, V = Cov θ: zero iff H and C commute. For the chain, the
    model and the Ornstein–Uhlenbeck law alike, each with its own V.

    Source: Adhikari et al. (2023), arXiv:2306.03521; the forms with momentum are derived.

    >>> import numpy as np
    >>> H, C = np.diag([1.0, 2.0]), np.array([[1.0, 0.5], [0.5, 1.0]])
    >>> stochastic_area(HeavyBallGaussian(H, C, 0.1)).round(4)
    array([[ 0.    , -0.0009],
           [ 0.0009,  0.    ]])
    """
    law.require_one_rate()
    return law.learning_rate / 2 * _commutator(law) / (1 - law.momentum)


def phase_plane_area(law: PhaseSpaceGaussian | HeavyBallGaussian) -> Float[Any, " d"]:
    """Area ½⟨x dv − v dx⟩ swept per step in the plane (position, velocity) of each mode.

    −ηC_l/(1−β²) for the model, −ηC_l/(2(1−β)) for the chain, with C_l the noise variance in mode
    l of H + λI, in ascending order of curvature. In the plane (θ, m) the sign is the other one.

    >>> import numpy as np
    >>> law = HeavyBallGaussian(np.eye(1), np.eye(1), 0.1, 0.5)
    >>> phase_plane_area(law).round(4)  # −ηC/(2(1 − β))
    array([-0.1])
    """
    law.require_one_rate()
    law.require_proper()
    beta, q = law.momentum, law.modes().vectors
    noise = np.diagonal(q.T @ law.noise_covariance @ q)
    factor = 1 - beta**2 if isinstance(law, PhaseSpaceGaussian) else 2 * (1 - beta)
    return -law.learning_rate * noise / factor


def entropy_production_rate(law: LinearLaw) -> float:
    """Entropy production in nats per step; zero iff H and C commute.

    - `OrnsteinUhlenbeckLaw`: −tr(𝒜 D⁻¹ 𝒜 V⁻¹), 𝒜 its area matrix, D = η²C/(2(1−β)²).
    - `PhaseSpaceGaussian`, velocity odd under time reversal: η[ζ² tr(Dv⁻¹ Cov v) − ζd].
    - `HeavyBallGaussian`, the sequence of θ: the mean of ½tr[S(w)S(w)⁻ᵀ] − d/2 over frequencies w,
      with the spectral density S(w) = T C T*, T⁻¹ = e^{iw} − (1+β) + η(H+λI) + βe^{−iw}.

    Raises `ValueError` unless C is positive definite: without noise in a direction the rate is
    infinite or undefined.

    Source: Adhikari et al. (2023), arXiv:2306.03521; the chain and the model are derived.

    >>> import numpy as np
    >>> H, C = np.diag([1.0, 2.0]), np.array([[1.0, 0.5], [0.5, 1.0]])
    >>> round(float(entropy_production_rate(HeavyBallGaussian(H, C, 0.1))), 4)
    0.0119
    """
    law.require_one_rate()
    law.require_proper()
    c = law.noise_covariance
    smallest = float(np.linalg.eigvalsh(c)[0])
    if smallest <= 0:
        raise ValueError(
            "noise_covariance must be positive definite for an entropy production, got smallest "
            f"eigenvalue {smallest:.6g}"
        )
    eta, beta, d = law.learning_rate, law.momentum, law.dimension
    if isinstance(law, OrnsteinUhlenbeckLaw):
        area = stochastic_area(law)
        diffusion = eta**2 * c / (2 * (1 - beta) ** 2)
        drift = np.linalg.solve(diffusion, area) @ np.linalg.inv(law.covariance())
        return float(-np.trace(area @ drift))
    if isinstance(law, PhaseSpaceGaussian):
        diffusion = 2 * c / (eta * (1 + beta) ** 2)
        hot = np.trace(np.linalg.solve(diffusion, law.covariance("momentum_buffer")))
        return float(eta * (law.friction**2 * hot - law.friction * d))
    return _chain_entropy_production(law)


def _chain_entropy_production(law: HeavyBallGaussian) -> float:
    h, q = law.modes()
    eta, beta = float(law.learning_rate), float(law.momentum)
    one = np.array([[1 - eta * h, 0 * h + eta * beta], [-h, 0 * h + beta]]).transpose(2, 0, 1)
    radius = np.abs(np.linalg.eigvals(one)).max()
    # The integrand is analytic in a strip of width −ln r: midpoints converge like r^number.
    number = int(np.ceil(40 / (1 - radius)))
    w = np.pi * ((np.arange(number) + 0.5) / number * 2 - 1)
    turn = np.exp(1j * w)[:, None]
    response = 1 / (turn - (1 + beta) + eta * h + beta / turn)
    c = q.T @ law.noise_covariance @ q
    spectrum = response[:, :, None] * c * response.conj()[:, None, :]
    ratio = np.trace(spectrum @ np.linalg.inv(np.swapaxes(spectrum, 1, 2)), axis1=1, axis2=2)
    return float(0.5 * np.mean(ratio.real) - len(h) / 2)


def _commutator(law: LinearLaw) -> Float[Any, "d d"]:
    h = law.hessian + law.weight_decay * np.eye(law.dimension)
    v = law.covariance()
    return h @ v - v @ h
