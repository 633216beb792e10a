"""What the literature on SGD's stationary behaviour is about, and where each part of it lives here.

`TOPICS` feeds the page `studies/catalogue.md`. A name that no longer resolves fails the tests.
"""

from typing import NamedTuple


class Topic(NamedTuple):
    """One subject and the dotted names, below `statsgd`, of what speaks about it."""

    area: str
    subject: str
    places: tuple[str, ...]


def _area(name: str, *subjects: tuple[str, str]) -> tuple[Topic, ...]:
    return tuple(Topic(name, subject, tuple(places.split())) for subject, places in subjects)


TOPICS = (
    *_area(
        "SGD and its noise",
        ("The heavy-ball update, weight decay, one meaning of temperature", "SGD"),
        ("Diffusion limits, Itô, first order and underdamped", "Diffusion SGD.diffusion_limit"),
        (
            "Minibatches: with and without replacement, reshuffled, one permutation, fresh data",
            "noise.Minibatch",
        ),
        (
            "Gradient noise as models: constant, loss-scaled, curvature-shaped, labels",
            "noise.Isotropic noise.Anisotropic noise.LossScaled noise.HessianScaled "
            "noise.LabelNoise noise.NoNoise",
        ),
        ("Noise matched in trace to another", "noise.TraceMatched"),
        ("Other optimisers", "OptaxDynamics"),
    ),
    *_area(
        "Phase space near a minimum",
        ("Underdamped law and modified loss", "laws.PhaseSpaceGaussian"),
        ("Exact transition, oscillation, correlation times", "laws.PhaseSpaceTransition"),
        (
            "Displacement and its anomalous exponent",
            "laws.local_displacement laws.mean_squared_displacement laws.displacement_exponent",
        ),
        (
            "Currents, stochastic area, entropy production",
            "laws.stochastic_area laws.phase_plane_area laws.entropy_production_rate "
            "laws.PhaseSpaceGaussian.current_velocity",
        ),
        ("Exact law of the heavy-ball chain", "laws.HeavyBallGaussian"),
        (
            "State-dependent minibatch noise of linear regression, fresh and finite data",
            "laws.LinearRegressionGaussian laws.regression_tail_index",
        ),
        (
            "First-order law and the rate nearest to a posterior",
            "laws.OrnsteinUhlenbeckLaw laws.optimal_learning_rate laws.posterior_divergence",
        ),
        (
            "Shuffled epochs: law, effective loss, shift of the mean",
            "laws.EpochNoiseGaussian laws.reshuffle_effective_loss laws.reshuffle_mean_shift",
        ),
    ),
    *_area(
        "Weight variance against curvature",
        ("Variance under white and epoch noise, crossover curvature", "laws.crossover_curvature"),
        ("One fixed permutation", "laws.single_shuffle_variance"),
        ("Variance over a window of steps", "laws.window_variance"),
        ("Inverse variance–flatness exponent", "laws.variance_flatness_exponent"),
        ("Two-layer linear networks", "laws.two_layer_linear_covariance"),
    ),
    *_area(
        "Gibbs-like laws and escape",
        ("Constant isotropic noise, with momentum too", "laws.Gibbs laws.gibbs_temperature"),
        ("Isotropic noise that varies in space", "laws.EffectivePotentialGibbs"),
        (
            "General covariance: when a potential exists",
            "laws.zero_flux_residual laws.require_zero_flux laws.OrnsteinUhlenbeckLaw",
        ),
        (
            "Weights of wells, equal weights, correction for finite steps",
            "laws.well_weights laws.effective_well_weights laws.discrete_well_factor "
            "laws.equal_weight_temperature laws.equal_weight_batch_size laws.KinkedWellsGibbs",
        ),
        (
            "Convergence rate",
            "laws.relaxation_gap_1d laws.relaxation_rate laws.FokkerPlanckLaw",
        ),
        (
            "Escape times, with and without momentum",
            "laws.kramers_escape_time laws.langer_escape_time laws.mean_first_passage_1d",
        ),
        (
            "Curvature noise and exponential preference for flat wells",
            "laws.curvature_noise_escape_time laws.curvature_noise_scale",
        ),
        (
            "Escape under noise that follows the loss",
            "laws.log_loss_mfpt laws.log_loss_mfpt_1d",
        ),
        (
            "Numerical truth for SDE and chain",
            "laws.FokkerPlanckLaw laws.DiscreteChainLaw",
        ),
    ),
    *_area(
        "Anisotropic noise",
        ("Five surrogates of the same trace", "noise.TraceMatched"),
        (
            "Climbing out of a minimum, and the indicator Tr(HC)",
            "laws.AnisotropicQuadraticLaw laws.escape_efficiency",
        ),
        (
            "Alignment with curvature, and what it bounds",
            "measures.isotropic_ratio measures.alignment_coefficient "
            "measures.isotropic_ratio_bound",
        ),
        (
            "A sharp and a flat basin in the plane",
            "problems.two_basins laws.TwoBasinGibbs laws.leave_probability problems.valley_wells",
        ),
        ("Expected sharpness", "measures.expected_sharpness"),
        (
            "Alignment scaled by the loss",
            "measures.loss_scaled_alignment measures.alignment_range "
            "measures.gaussian_loss_scaled_alignment",
        ),
        (
            "Linear stability in mean square",
            "measures.mean_square_threshold measures.stability_bounds "
            "measures.mean_square_growth measures.momentum_mean_square_growth "
            "measures.fresh_mean_square_threshold",
        ),
    ),
    *_area(
        "Noise that scales with the loss",
        (
            "Scalar noise and the pure power law",
            "laws.ScalarNoiseLaw laws.LossScaledLaw laws.TorusPowerOfLossLaw",
        ),
        (
            "Regimes and when the law exists",
            "laws.classify_noise_regime laws.critical_noise_ratio laws.critical_learning_rate",
        ),
        (
            "A floor under the loss: Student-t and its log-loss relative",
            "laws.FlooredLossScaledLaw laws.FlooredPowerOfLossLaw laws.StudentTLaw "
            "laws.floor_second_moments laws.floor_well_weights",
        ),
        (
            "Noise that saturates: exact sampler",
            "laws.SaturatingLossScaledLaw laws.SaturatedPowerOfLossLaw",
        ),
        (
            "Which minima and strata are preferred",
            "laws.flatness_weight laws.codimension_selection laws.distance_tube_mass "
            "laws.loss_tube_mass laws.log_loss_flatness laws.StrataLaw",
        ),
        (
            "Collapse: where, how fast, at which noise",
            "laws.collapse_probability laws.lyapunov_exponent laws.discrete_collapse_threshold "
            "laws.linear_regression_collapse_threshold laws.linear_regression_growth_rate "
            "laws.mean_loss_contraction",
        ),
        ("Power law along outlier directions", "laws.OutlierPowerLaw"),
        ("Fitting the noise to data", "laws.fit_loss_scaled_noise"),
    ),
    *_area(
        "Valleys",
        ("Adiabatic law along a degenerate valley, second order too", "laws.ValleyLaw"),
        ("Drift along the valley", "laws.valley_motion"),
        ("Random shifts of the floor", "laws.random_shift_noise laws.random_shift_path"),
        ("Upper bound of the noise", "laws.max_stable_learning_rate"),
        ("Two valleys: landscape and frozen law", "problems.TwoValleyLandscape laws.TwoValleyLaw"),
        ("Hopping between two valleys", "laws.TwoValleyHopping laws.two_valley_chain_law"),
        ("Transient freezing", "laws.freezing_prediction laws.freezing_point_scaling"),
    ),
    *_area(
        "Balance and symmetry",
        (
            "Exact one-step identities",
            "laws.charge_step laws.pair_balance_step laws.matrix_charge_step",
        ),
        ("Law of balance", "laws.balance_rate laws.noise_balance_gap laws.charge_trajectory"),
        ("Constants of the data", "laws.DataMoments"),
        (
            "Stationary law of diagonal networks of any depth and width, label noise included",
            "laws.DiagonalNetworkLaw laws.InfiniteDepthNetworkLaw",
        ),
        ("Five regimes of learning", "laws.learning_regime"),
        ("Interpolation: two absorbing points", "laws.InterpolationLaw"),
        ("Collapse of the discrete chain", "laws.collapse_exponent"),
        (
            "Noise equilibria of rescaling, exponential and scale-invariant symmetries",
            "laws.NoiseEquilibrium laws.linear_network_equilibrium "
            "laws.scale_invariant_equilibrium_norm",
        ),
        ("Contrast: Langevin noise", "laws.langevin_charge_growth laws.RescalingGibbs"),
    ),
    *_area(
        "Mean field",
        ("Stationary law of many particles", "laws.MeanFieldLaw laws.MeanFieldLimit"),
        ("The exact quadratic problem", "laws.QuadraticMeanField"),
        ("Entropy sandwich and log-Sobolev rate", "laws.entropy_sandwich laws.log_sobolev_bound"),
        (
            "Minibatches shared by all particles",
            "laws.shared_minibatch_variance laws.particle_sgd",
        ),
    ),
    *_area(
        "After zero loss, and large steps",
        (
            "Limiting diffusion on a valley of minimisers",
            "laws.valley_motion laws.ZeroLossCircleLaw",
        ),
        ("Label noise: sharpness flow", "laws.sharpness_flow laws.integrate_valley_flow"),
        ("Laws on the valley", "laws.ValleyEntropyLaw laws.ValleySharpnessLaw"),
        (
            "SGD that converges to local maxima",
            "laws.LogMultiplicativeWalk laws.collapse_window laws.momentum_growth_rate",
        ),
        (
            "Large steps and sparse features",
            "laws.DiagonalNetLargeStep problems.hadamard_regression laws.weighted_basis_pursuit",
        ),
        ("Two-cycles at the edge of stability", "laws.two_cycle laws.two_cycle_half_width"),
        (
            "Mean exit time",
            "laws.mean_exit_time_1d laws.mean_exit_time_ball laws.mean_exit_time_box",
        ),
    ),
    *_area(
        "Kernels",
        ("Overdamped, exact and not", "kernels.MALA kernels.ULA"),
        ("Underdamped, exact and not", "kernels.OBABO kernels.BAOAB kernels.BAOAB.from_sgd"),
        (
            "Stochastic gradients: SGLD, preconditioned, by epochs, underdamped, thermostatted",
            "kernels.SGLD kernels.PreconditionedSGLD kernels.SGWORLD kernels.SGHMC kernels.SGNHT",
        ),
        ("Noise that depends on the state", "kernels.StateDependentLangevin"),
        ("Many wells", "kernels.ReplicaExchange kernels.find_wells kernels.mixing"),
        ("Interacting particles", "kernels.MeanFieldLangevin"),
        ("Bias of a finite step", "kernels.step_size_bias"),
        ("Draws as an ArviZ tree, from stores, on grids and several devices", "sample"),
    ),
    *_area(
        "Comparison",
        ("Verdicts with a practical margin", "compare"),
        ("Where a difference comes from", "comparison.gap_decomposition laws.split_discrepancy"),
        ("Calibration and power of the tests", "comparison.calibrate"),
        ("Laws fitted to endpoints", "comparison.fit_law comparison.compare_laws"),
    ),
)
