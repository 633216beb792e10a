"""How long replicas stay in a region: survival, escape rate and mean time, with censoring.

A replica that is still inside when its run ends says only that its exit time is longer. Leaving
such replicas out, or counting their run's length as an exit time, makes escape look too fast.
"""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from scipy.stats import CensoredData, chi2, ecdf, norm

from statsgd.arguments import finite_array, non_negative, positive
from statsgd.ensembles import observed
from statsgd.estimate import Estimate, tail


class ExitTimes(NamedTuple):
    """First exits of independent replicas."""

    time: Float[Any, " replica"]
    """When each left, or was last seen inside (steps)."""
    left: Bool[Any, " replica"]
    """Whether it left; False is a censored time."""


class Survival(NamedTuple):
    """Probability S(t) of having stayed, a step function that falls at `time`."""

    time: Float[Any, " times"]
    """Distinct exit times, in order."""
    survival: Float[Any, " times"]
    """S from that time on."""
    standard_error: Float[Any, " times"]
    """Greenwood's."""
    at_risk: Int[Any, " times"]
    """Replicas that were still inside just before."""
    exits: Int[Any, " times"]

    def at(self, times: Any) -> Estimate:
        """S at each of `times`; after the last exit it says no more than that it is not higher."""
        place = np.searchsorted(self.time, np.atleast_1d(np.asarray(times, float)), side="right")
        return Estimate(
            np.append(1.0, self.survival)[place], np.append(0.0, self.standard_error)[place]
        )

    def interval(self, confidence: float = 0.95) -> tuple[Any, Any]:
        """Interval of S at every `time`, on the scale log(−log S), so that it stays in [0, 1].

        Source: Kalbfleisch, Prentice (2002).
        """
        z = norm.isf(tail(confidence))
        s = self.survival
        inside = (s > 0) & (s < 1)
        safe = np.where(inside, s, 0.5)
        reach = z * self.standard_error / (safe * np.abs(np.log(safe)))
        low, high = safe ** np.exp(reach), safe ** np.exp(-reach)
        # All have left: the error is unknown, and S may be anything below what it was before.
        last = np.append(1.0, s)[:-1]
        return np.where(inside, low, np.where(s > 0, 1.0, 0.0)), np.where(inside, high, last)


def first_exit(inside: Bool[Any, "replica step"], times: Float[Any, " step"]) -> ExitTimes:
    """First recorded exit of every replica, from whether it was inside at each of `times`.

    A replica that was outside at time t_i is taken to have left at t_i, and one that is inside at
    all records is censored at the last. Exits and returns between two records are not seen: record
    every step (or use `first_passage`), or state the spacing with the result.

    Raises `ValueError` for shapes that do not fit, times that do not increase, and replicas that
    are outside at the first record.

    Numbers are float64.

    >>> import numpy as np
    >>> inside = np.array([[True, False, False], [True, True, True]])
    >>> first_exit(inside, np.arange(3.0))
    ExitTimes(time=array([1., 2.]), left=array([ True, False]))
    """
    held = np.asarray(inside)
    t = np.asarray(finite_array("times", times, ndim=1), dtype=np.float64)
    if held.dtype != np.bool_ or held.ndim != 2 or held.shape[1] != len(t) or not len(t):
        raise ValueError(
            f"inside must be booleans of shape (replica, {len(t)}), got {held.dtype} {held.shape}"
        )
    if np.any(np.diff(t) <= 0):
        raise ValueError("times must increase, got times that do not")
    if not held[:, 0].all():
        raise ValueError(
            f"inside must hold at the first record, got {int((~held[:, 0]).sum())} replicas outside"
        )
    left = ~held.all(axis=1)
    first = np.where(left, np.argmin(held, axis=1), len(t) - 1)
    return ExitTimes(t[first], left)


def exit_times(tree: xr.DataTree, inside: str, *, start: bool = True) -> ExitTimes:
    """First exits in steps from `simulate(…, observe={inside: …}, observe_at=1)`.

    The observable `inside` is a number per replica and step, true or positive inside. With `start`
    the replicas were inside at step 0, which need not be recorded. Replicas that diverged left at
    the latest when they did.

    Raises `ValueError` as `first_exit`, and without such an observable.

    Numbers are float64.

    >>> import statsgd
    >>> from statsgd.problems import quadratic
    >>> sgd = statsgd.SGD(0.1, statsgd.noise.Isotropic(1.0))
    >>> inside = {"inside": lambda params: abs(params[0]) < 0.05}
    >>> tree = statsgd.simulate(
    ...     quadratic(np.eye(1)), sgd, steps=20, replicas=3, seed=0, progress=False,
    ...     observe=inside, observe_at=1,
    ... )
    >>> exit_times(tree, "inside").left.tolist()
    [True, True, True]
    """
    record = observed(tree, inside)
    held, steps = record.values > 0, record["step"].values.astype(np.float64)
    if start and steps[0] > 0:
        held = np.concatenate([np.ones((len(held), 1), dtype=bool), held], axis=1)
        steps = np.append(0.0, steps)
    if "run" in tree.children:
        gone = tree["run"].to_dataset()["diverged_at"].values[:, None]
        held &= (gone < 0) | (steps < gone)
    return first_exit(held, steps)


def survival_curve(exits: ExitTimes) -> Survival:
    """Kaplan–Meier estimate of S(t) = P(T > t), with Greenwood's standard errors.

        S(t) = Π_{t_i ≤ t} (1 − d_i/n_i),   Var S = S² Σ d_i/(n_i(n_i − d_i))

    with d_i exits at t_i among n_i replicas still inside. A censored replica counts up to its time.

    Source: Kaplan, Meier (1958); Greenwood (1926).

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd.measures import first_exit
    >>> inside = np.array([[True, False, False], [True, True, False]])
    >>> exits = first_exit(inside, np.arange(3.0))
    >>> survival_curve(exits).survival
    array([0.5, 0. ])
    """
    time, left = _checked(exits)
    at, gone = np.unique(time[left], return_counts=True)
    number = len(time) - np.searchsorted(np.sort(time), at)
    stays = ecdf(CensoredData.right_censored(time, ~left)).sf.evaluate(at)
    terms = np.divide(gone, number * (number - gone), out=np.zeros(len(at)), where=number > gone)
    return Survival(at, stays, stays * np.sqrt(np.cumsum(terms)), number, gone)


def escape_rate(exits: ExitTimes, *, after: float = 0.0) -> Estimate:
    """Rate of exponential escape by maximum likelihood: exits over the time spent at risk.

        rate = d/Σ (min(t, …) − after),   standard error √d/Σ (…)

    per unit of the exit times. In steps this is the probability of leaving in one step, and 1/rate
    the mean number of steps. Escape from a well is exponential only once the replicas have
    forgotten their start: with `after` only those still inside then count, from then on. For few
    exits see `escape_rate_interval`.

    Raises `ValueError` where nobody is inside at `after`.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd.measures import first_exit
    >>> inside = np.array([[True, False, False], [True, True, False]])
    >>> exits = first_exit(inside, np.arange(3.0))
    >>> escape_rate(exits)  # two exits in three steps at risk
    Estimate(0.666667 ± 0.471405)
    """
    number, at_risk = _at_risk(exits, after)
    return Estimate(number / at_risk, number**0.5 / at_risk)


def escape_rate_interval(
    exits: ExitTimes, *, after: float = 0.0, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of the rate of exponential escape, [χ²_{2d, α/2}, χ²_{2d+2, 1−α/2}]/(2 · time).

    Exact for a run that ends at a given time at risk, conservative else; it holds for few exits,
    and for none at all. Raises as `escape_rate`.

    Source: Garwood (1936).

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd.measures import first_exit
    >>> exits = first_exit(np.ones((2, 11), bool), np.arange(11.0))  # nobody has left in ten steps
    >>> low, high = escape_rate_interval(exits)
    >>> float(low), round(float(high), 3)
    (0.0, 0.184)
    """
    number, at_risk = _at_risk(exits, after)
    error = tail(confidence)
    low = chi2.ppf(error, 2 * number) / 2 if number else 0.0
    return float(low) / at_risk, float(chi2.isf(error, 2 * number + 2)) / 2 / at_risk


def restricted_mean(exits: ExitTimes, horizon: float) -> Estimate:
    """E min(T, horizon), the area under S(t): a mean time that censoring does not spoil.

    Var = Σ A_i² d_i/(n_i(n_i − d_i)), A_i the area from t_i to the horizon. It tends to the mean
    exit time as the horizon grows; up to the last recorded time it assumes no form of S.

    Raises `ValueError` for a horizon beyond the last time anyone was seen, unless all left.

    Source: Kaplan, Meier (1958).

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd.measures import first_exit
    >>> inside = np.array([[True, False, False], [True, True, False]])
    >>> exits = first_exit(inside, np.arange(3.0))
    >>> float(restricted_mean(exits, 2.0).value)
    1.5
    """
    time, _ = _checked(exits)
    end = float(positive("horizon", horizon))
    curve = survival_curve(exits)
    last = float(time.max())
    if end > last and not (len(curve.survival) and curve.survival[-1] == 0):
        raise ValueError(f"horizon must be at most the last time seen {last:.6g}, got {horizon}")
    within = curve.time < end
    at, stays = curve.time[within], curve.survival[within]
    pieces = np.diff(np.concatenate([at, [end]])) * stays
    area = float(np.append(at, end)[0] + pieces.sum())
    remaining = np.cumsum(pieces[::-1])[::-1]  # from each exit time to the horizon
    number, gone = curve.at_risk[within], curve.exits[within]
    inside = number - gone
    terms = np.divide(gone, number * inside, out=np.zeros(len(at)), where=inside > 0)
    return Estimate(area, float(np.sqrt(np.sum(remaining**2 * terms))))


def _at_risk(exits: ExitTimes, after: float) -> tuple[int, float]:
    """Exits after a time, and the time that replicas were at risk of them."""
    time, left = _checked(exits)
    since = float(non_negative("after", after))
    there = time > since
    at_risk = float(np.sum(time[there] - since))
    if not at_risk > 0:
        raise ValueError(f"after must leave replicas inside, got {after} with none")
    return int(np.sum(left & there)), at_risk


def _checked(exits: ExitTimes) -> tuple[np.ndarray, np.ndarray]:
    time = np.asarray(non_negative("exits.time", exits.time), dtype=np.float64)
    left = np.asarray(exits.left)
    if time.ndim != 1 or not len(time) or left.shape != time.shape or left.dtype != np.bool_:
        raise ValueError(
            "exits must hold times and booleans of one shape (replica,), got "
            f"{time.shape} and {left.dtype} {left.shape}"
        )
    return time, left
