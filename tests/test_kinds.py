"""Arguments of the wrong kind are told from those of a wrong value, in one line, from one place."""

import inspect

import numpy as np
import pytest

import statsgd
from statsgd import SGD, OptaxDynamics, comparison, kernels, laws, measures, noise, problems

SGD_ = SGD(0.1, noise.Isotropic(1.0))
PROBLEM = problems.landscape(lambda x: 0.5 * x @ x, np.zeros(1))
LAW = laws.HeavyBallGaussian([[2.0]], [[1.0]], learning_rate=0.1)
POINTS = np.zeros((30, 1))
RUN = {"steps": 2, "replicas": 2, "seed": 0, "progress": False}


def adam():
    optax = pytest.importorskip("optax")
    return OptaxDynamics(optax.adam, noise.NoNoise(), {"learning_rate": 0.1})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SGD([0.1, 0.2], noise.NoNoise()), "must be one number.*statsgd.grid"),
        (lambda: SGD("fast", noise.NoNoise()), "learning_rate must be positive.*got 'fast'"),
        (lambda: SGD(noise.NoNoise(), 0.1), r"noise must be .*got 0.1; the arguments are SGD\("),
        (lambda: SGD(0.1, noise.Minibatch), "got the class Minibatch itself, not an instance"),
        (lambda: statsgd.simulate(SGD_, PROBLEM, **RUN), "problem must be a Problem.*got SGD"),
        (lambda: statsgd.simulate(PROBLEM, SGD, **RUN), "dynamics must be .*the class SGD itself"),
        (lambda: statsgd.simulate(PROBLEM, "sgd", **RUN), "dynamics must be .*got 'sgd'"),
        (
            lambda: statsgd.simulate(PROBLEM, SGD(np.array([0.1, 0.2]), noise.NoNoise()), **RUN),
            "learning_rate of one run .*must be one number",
        ),
        (lambda: statsgd.compare(LAW, POINTS, seed=0), "endpoints must be .*got HeavyBallGaussian"),
        (lambda: statsgd.compare(POINTS, type(LAW), seed=0), "the class HeavyBallGaussian itself"),
        (lambda: statsgd.compare(POINTS, "normal", seed=0), "law_or_draws must be .*got 'normal'"),
        (lambda: statsgd.compare(POINTS, SGD_, seed=0), "law_or_draws must be .*got SGD"),
        (lambda: statsgd.sample(laws.Gibbs, seed=0), "law must be .*the class Gibbs itself"),
        (lambda: statsgd.sample(kernels.MALA(), LAW, seed=0), "kernel must be .*got HeavyBall"),
        (lambda: statsgd.sample(LAW, kernels.MALA, seed=0), "kernel must be .*the class MALA"),
        (lambda: laws.HeavyBallGaussian.from_sgd(SGD_, PROBLEM), r"problem must be .*got SGD\("),
        (lambda: laws.HeavyBallGaussian.from_sgd(PROBLEM, adam()), "sgd must be a statsgd.SGD"),
        (lambda: laws.Gibbs.from_sgd(PROBLEM, 0.1), "sgd must be a statsgd.SGD.*got 0.1"),
        (lambda: SGD("0.1", noise.NoNoise()), "learning_rate must be positive.*got '0.1'"),
        (lambda: laws.check(laws.Gibbs), r"the class Gibbs itself.*are check\(law, …\)"),
        (lambda: laws.applicable(PROBLEM, SGD), "sgd must be a statsgd.SGD or other.*class SGD"),
        (lambda: statsgd.noise_covariance(PROBLEM, np.zeros(1), 4), "noise must be one of.*got 4"),
        (lambda: statsgd.report("page.html", LAW), "path must be a file to write, got HeavyBall"),
        (lambda: statsgd.report(None, "page.html"), "results must be .*returns, got None"),
        (lambda: statsgd.compare(POINTS, LAW, seed=0, variables="params"), r"write \['params'\]"),
        (
            lambda: statsgd.compare(POINTS, LAW, seed=0, effects=["shift"]),
            r"effects\[0\] must be an effect .*got 'shift'",
        ),
        (lambda: statsgd.compare(POINTS + 1j, LAW, seed=0), "endpoints must be real"),
        (lambda: comparison.accuracy(LAW, LAW), "truth must be a Marginal.*got HeavyBall"),
        (lambda: comparison.energy(POINTS, POINTS, 0), "key must be a key, as .*got 0"),
        (lambda: comparison.kernel_stein_discrepancy(POINTS, POINTS, 0), "key must be .*got 0"),
        (lambda: comparison.compare_laws([LAW]), "fits must be results of fit_law.*a list of 1"),
        (lambda: comparison.parameter_verdicts(LAW, {"v": 1.0}), "fit must be a result of fit_law"),
        (
            lambda: comparison.parameter_verdicts(statsgd.ensemble(POINTS), {"v": 1.0}),
            "with the group 'posterior', got the groups",
        ),
        (
            lambda: comparison.fit_law(lambda v: LAW, statsgd.ensemble(POINTS), {"v": 1.0}, seed=0),
            r"priors\['v'\] must be one of numpyro.distributions, got 1.0",
        ),
        (lambda: kernels.ULA(0.1), r"model must be a function, got 0.1.*ULA\(step_size=…\)"),
        (lambda: kernels.step_size_bias(kernels.ULA(), LAW, seed=0), "kernel must be .*got Heavy"),
        (
            lambda: measures.predicted_rise(PROBLEM, SGD_, [1]),
            "spectrum must be what noise_spectrum returns, got Landscape",
        ),
        (lambda: laws.networks.learning_regime(1.0, 0.1), "moments must be DataMoments.*got 1.0"),
        (lambda: laws.mean_field.MeanFieldLimit(3, 1.0, 1.0, 1.0), "features must be a function"),
        (lambda: laws.valleys.ValleyEntropyLaw(2.0), "normal_hessian must be a function.*got 2.0"),
        (
            lambda: measures.rescaling_symmetry(PROBLEM, "params", ["params"]),
            "parts must be a list of leaves or their parts, got the text 'params'",
        ),
    ],
)
def test_wrong_kinds_are_named(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def of_problems():
    """Every public function whose first argument is a problem."""
    families = [room for name in dir(laws) if inspect.ismodule(room := getattr(laws, name))]
    rooms = (statsgd, problems, laws, *families, kernels, noise, measures, statsgd.comparison)
    named = {name: getattr(room, name) for room in rooms for name in dir(room)}
    for name, function in sorted(named.items()):
        if inspect.isfunction(function):
            arguments = inspect.signature(function).parameters
            if next(iter(arguments), "") == "problem":
                yield pytest.param(function, arguments.values(), id=name)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("function", "arguments"), list(of_problems()))
def test_a_problem_in_another_place_is_named(function, arguments):
    needed = [one for one in arguments if one.default is one.empty]
    given = {one.name: None for one in needed} | {"problem": POINTS}
    order = rf"the arguments are {function.__name__}\("
    said = rf"problem must be a Problem.*got an array of shape \(30, 1\); {order}"
    with pytest.raises(ValueError, match=said):
        function(**given)


def test_a_list_of_numbers_is_one_variable():
    problem = problems.landscape(lambda x: (x[0] - 1) ** 2 + x[1] ** 2, [0.0, 2.0])
    assert problem.names == ["params"]
    tree = statsgd.simulate(problem, SGD(0.5, noise.NoNoise()), start=[1.0, 4.0], **RUN)
    assert tree["endpoints"].params.values.tolist() == [[1.0, 0.0]] * 2


def test_laws_with_exact_draws_need_no_kernel():
    draws = statsgd.sample(LAW, draws=2, chains=1, seed=0, progress=False)
    assert draws.attrs["kernel"] == "exact draws"
