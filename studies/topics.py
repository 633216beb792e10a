"""What the literature on SGD's stationary behaviour is about, and where each part of it lives here.

`TOPICS` feeds the page `notebooks/catalogue.md`. A name that no longer resolves fails the tests.
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
        (
            "Heavy tails: stable and Student-t noise, recorded gradients drawn again",
            "noise.Stable noise.StudentT noise.Empirical",
        ),
        ("Other optimisers", "OptaxDynamics"),
    ),
    *_area(
        "Phase space near a minimum",
        ("Underdamped law and modified loss", "laws.PhaseSpaceGaussian"),
        ("Exact transition, oscillation, correlation times", "laws.minimum.PhaseSpaceTransition"),
        (
            "Displacement and its anomalous exponent",
            "laws.minimum.local_displacement laws.minimum.mean_squared_displacement "
            "laws.minimum.displacement_exponent",
        ),
        (
            "Displacement of all parameters of a network, without its eigenvectors",
            "measures.noise_spectrum measures.predicted_displacement measures.predicted_exponent "
            "measures.predicted_rise",
        ),
        (
            "Currents, stochastic area, entropy production",
            "laws.minimum.stochastic_area laws.minimum.phase_plane_area "
            "laws.minimum.entropy_production_rate "
            "laws.PhaseSpaceGaussian.current_velocity",
        ),
        ("A law by its moments", "laws.GaussianLaw"),
        ("Exact law of the heavy-ball chain", "laws.HeavyBallGaussian"),
        (
            "Any linear optimiser: Nesterov, dampening, decays, averages of iterates, transients",
            "laws.LinearOptimiserGaussian laws.LinearOptimiserGaussian.average "
            "laws.LinearOptimiserGaussian.after laws.LinearOptimiserGaussian.autocovariance "
            "laws.minimum.LinearOptimiser",
        ),
        (
            "Adam, AdamW, RMSProp, sign descent and clipped gradients near a minimum",
            "laws.AdaptiveGaussian laws.AdaptiveGaussian.refined laws.minimum.Adam "
            "laws.minimum.SignDescent laws.minimum.ClippedOptimiser "
            "laws.minimum.adaptive_optimiser",
        ),
        (
            "Sharpness-aware minimisation and weight noise",
            "dynamics.SharpnessAware dynamics.WeightNoise laws.valleys.sharpness_aware_drift",
        ),
        (
            "The law in the leading modes around a checkpoint of a network, after any steps",
            "laws.ModeLaw laws.ModeLaw.from_checkpoint laws.ModeLaw.corrected "
            "laws.ModeLaw.project problems.linear_twin measures.noise_covariance_along "
            "measures.noise_covariance_along_estimate measures.noise_and_curvature_along "
            "measures.paired_variance_ratio measures.equipartition",
        ),
        ("All of it for one's own network, in one call and as a page", "diagnose report"),
        (
            "State-dependent minibatch noise of linear regression, fresh and finite data",
            "laws.LinearRegressionGaussian laws.minimum.regression_shape "
            "laws.minimum.gaussian_regression_kurtosis laws.loss_noise.regression_tail_index",
        ),
        (
            "First-order law and the rate nearest to a posterior",
            "laws.OrnsteinUhlenbeckLaw laws.minimum.optimal_learning_rate "
            "laws.minimum.posterior_divergence",
        ),
        (
            "Shuffled epochs: law, effective loss, shift of the mean",
            "laws.EpochNoiseGaussian laws.ReshuffledRegressionGaussian "
            "laws.minimum.reshuffle_effective_loss "
            "laws.minimum.reshuffle_mean_shift",
        ),
    ),
    *_area(
        "Weight variance against curvature",
        (
            "Variance under white and epoch noise, crossover curvature",
            "laws.minimum.crossover_curvature",
        ),
        ("One fixed permutation", "laws.minimum.single_shuffle_variance"),
        ("Variance over a window of steps", "laws.networks.window_variance"),
        ("Inverse variance–flatness exponent", "laws.networks.variance_flatness_exponent"),
        ("Two-layer linear networks", "laws.networks.two_layer_linear_covariance"),
    ),
    *_area(
        "Gibbs-like laws and escape",
        ("Constant isotropic noise, with momentum too", "laws.Gibbs laws.gibbs.gibbs_temperature"),
        ("Isotropic noise that varies in space", "laws.EffectivePotentialGibbs"),
        (
            "General covariance: when a potential exists",
            "laws.gibbs.zero_flux_residual laws.gibbs.require_zero_flux laws.OrnsteinUhlenbeckLaw",
        ),
        (
            "Weights of wells, equal weights, correction for finite steps",
            "laws.gibbs.well_weights laws.gibbs.effective_well_weights "
            "laws.gibbs.discrete_well_factor "
            "laws.gibbs.equal_weight_temperature laws.gibbs.equal_weight_batch_size "
            "laws.KinkedWellsGibbs",
        ),
        (
            "Convergence rate",
            "laws.gibbs.relaxation_gap_1d laws.gibbs.underdamped_gap_1d "
            "laws.loss_noise.relaxation_rate laws.FokkerPlanckLaw",
        ),
        (
            "Escape times, with and without momentum",
            "laws.gibbs.kramers_escape_time laws.gibbs.langer_escape_time "
            "laws.gibbs.mean_first_passage_1d",
        ),
        (
            "Curvature noise and exponential preference for flat wells",
            "laws.gibbs.curvature_noise_escape_time laws.gibbs.curvature_noise_scale",
        ),
        (
            "Escape under noise that follows the loss",
            "laws.loss_noise.log_loss_mfpt laws.loss_noise.log_loss_mfpt_1d",
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
            "laws.AnisotropicQuadraticLaw laws.minimum.escape_efficiency",
        ),
        (
            "Alignment with curvature, and what it bounds",
            "measures.isotropic_ratio measures.alignment_coefficient "
            "measures.isotropic_ratio_bound",
        ),
        (
            "A sharp and a flat basin in the plane",
            "problems.two_basins laws.TwoBasinGibbs laws.gibbs.leave_probability "
            "problems.valley_wells",
        ),
        ("Expected sharpness", "measures.expected_sharpness"),
        ("Curvature in kinks", "measures.secant_curvature"),
        ("A ridge of the loss between two places", "measures.loss_barrier"),
        (
            "Flatness to all orders: the local learning coefficient, and its chains' settings",
            "measures.local_learning_coefficient measures.learning_coefficient_grid",
        ),
        (
            "Alignment scaled by the loss",
            "measures.loss_scaled_alignment measures.alignment_range "
            "measures.gaussian_loss_scaled_alignment",
        ),
        (
            "Linear stability in mean square",
            "measures.mean_square_threshold measures.stability_bounds "
            "measures.mean_square_growth measures.momentum_mean_square_growth "
            "measures.fresh_mean_square_threshold measures.batch_curvature_along",
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
            "laws.loss_noise.classify_noise_regime laws.loss_noise.critical_noise_ratio "
            "laws.minimum.critical_learning_rate",
        ),
        (
            "A floor under the loss: Student-t and its log-loss relative",
            "laws.FlooredLossScaledLaw laws.FlooredPowerOfLossLaw laws.bases.StudentTLaw "
            "laws.loss_noise.floor_second_moments laws.loss_noise.floor_well_weights",
        ),
        (
            "Noise that saturates: exact sampler",
            "laws.SaturatingLossScaledLaw laws.SaturatedPowerOfLossLaw",
        ),
        (
            "Which minima and strata are preferred",
            "laws.loss_noise.flatness_weight laws.loss_noise.codimension_selection "
            "laws.loss_noise.distance_tube_mass "
            "laws.loss_noise.loss_tube_mass laws.networks.log_loss_flatness laws.StrataLaw",
        ),
        (
            "Collapse: where, how fast, at which noise",
            "laws.loss_noise.collapse_probability laws.loss_noise.lyapunov_exponent "
            "laws.loss_noise.discrete_collapse_threshold "
            "laws.loss_noise.linear_regression_collapse_threshold "
            "laws.loss_noise.linear_regression_growth_rate "
            "laws.loss_noise.mean_loss_contraction",
        ),
        ("Power law along outlier directions", "laws.OutlierPowerLaw"),
        ("Fitting the noise to data", "laws.loss_noise.fit_loss_scaled_noise"),
    ),
    *_area(
        "Heavy tails",
        (
            "Stable noise on a quadratic: exact law of the chain, momentum, continuous limit",
            "laws.StableLaw laws.StableLaw.continuous laws.heavy_tails.SymmetricStable "
            "laws.heavy_tails.impulse_response",
        ),
        (
            "First exit by one jump, beside Kramers",
            "laws.heavy_tails.stable_exit laws.heavy_tails.stable_exit_steps "
            "laws.heavy_tails.stable_exit_ball laws.heavy_tails.stable_well_weights "
            "laws.gibbs.kramers_escape_time",
        ),
        (
            "Power laws made by the data: fresh Gaussian and finite",
            "laws.heavy_tails.gaussian_tail_index laws.heavy_tails.gaussian_tail_learning_rate "
            "laws.heavy_tails.matrix_tail_index laws.heavy_tails.batch_matrices "
            "laws.loss_noise.regression_tail_index",
        ),
        (
            "Tail indices measured, and whether batches become normal",
            "measures.tail_index measures.batch_gaussianity measures.noise_excess_kurtosis "
            "measures.gradient_noise",
        ),
    ),
    *_area(
        "Valleys",
        ("Adiabatic law along a degenerate valley, second order too", "laws.ValleyLaw"),
        ("Drift along the valley", "laws.valleys.valley_motion"),
        (
            "Random shifts of the floor",
            "laws.valleys.random_shift_noise laws.valleys.random_shift_path",
        ),
        ("Upper bound of the noise", "laws.valleys.max_stable_learning_rate"),
        ("Two valleys: landscape and frozen law", "problems.TwoValleyLandscape laws.TwoValleyLaw"),
        (
            "Hopping between two valleys",
            "laws.valleys.TwoValleyHopping laws.valleys.two_valley_chain_law",
        ),
        (
            "Transient freezing",
            "laws.valleys.freezing_prediction laws.valleys.freezing_point_scaling",
        ),
    ),
    *_area(
        "Balance and symmetry",
        (
            "Exact one-step identities",
            "laws.balance.charge_step laws.balance.pair_balance_step "
            "laws.balance.matrix_charge_step",
        ),
        (
            "Law of balance",
            "laws.balance.balance_rate laws.balance.noise_balance_gap "
            "laws.balance.charge_trajectory",
        ),
        ("Constants of the data", "laws.networks.DataMoments"),
        (
            "Stationary law of diagonal networks of any depth and width, label noise included",
            "laws.DiagonalNetworkLaw laws.InfiniteDepthNetworkLaw",
        ),
        ("Five regimes of learning", "laws.networks.learning_regime"),
        ("Interpolation: two absorbing points", "laws.InterpolationLaw"),
        ("Collapse of the discrete chain", "laws.networks.collapse_exponent"),
        (
            "Noise equilibria of rescaling, exponential and scale-invariant symmetries",
            "laws.NoiseEquilibrium laws.balance.linear_network_equilibrium "
            "laws.balance.scale_invariant_equilibrium_norm",
        ),
        ("Contrast: Langevin noise", "laws.balance.langevin_charge_growth laws.RescalingGibbs"),
    ),
    *_area(
        "Mean field",
        ("Stationary law of many particles", "laws.MeanFieldLaw laws.MeanFieldLimit"),
        ("The exact quadratic problem", "laws.QuadraticMeanField"),
        (
            "Entropy sandwich and log-Sobolev rate",
            "laws.mean_field.entropy_sandwich laws.mean_field.log_sobolev_bound",
        ),
        (
            "Minibatches shared by all particles",
            "laws.mean_field.shared_minibatch_variance laws.mean_field.particle_sgd",
        ),
    ),
    *_area(
        "After zero loss, and large steps",
        (
            "Limiting diffusion on a valley of minimisers",
            "laws.valleys.valley_motion laws.ZeroLossCircleLaw",
        ),
        (
            "Label noise: sharpness flow",
            "laws.valleys.sharpness_flow laws.valleys.integrate_valley_flow",
        ),
        ("Laws on the valley", "laws.ValleyEntropyLaw laws.ValleySharpnessLaw"),
        (
            "SGD that converges to local maxima",
            "laws.LogMultiplicativeWalk laws.loss_noise.collapse_window "
            "laws.loss_noise.momentum_growth_rate laws.loss_noise.moment_threshold",
        ),
        (
            "Large steps and sparse features",
            "laws.networks.DiagonalNetLargeStep problems.hadamard_regression "
            "laws.valleys.weighted_basis_pursuit",
        ),
        (
            "Two-cycles at the edge of stability",
            "laws.minimum.two_cycle laws.minimum.two_cycle_half_width",
        ),
        (
            "Mean exit time",
            "laws.gibbs.mean_exit_time_1d laws.gibbs.mean_exit_time_ball "
            "laws.gibbs.mean_exit_time_box",
        ),
    ),
    *_area(
        "Kernels",
        ("Overdamped, exact and not", "kernels.MALA kernels.ULA"),
        ("Underdamped, exact and not", "kernels.OBABO kernels.BAOAB kernels.BAOAB.from_sgd"),
        (
            "Stochastic gradients: SGLD, preconditioned, by epochs, underdamped, thermostatted",
            "kernels.SGLD kernels.PreconditionedSGLD kernels.SGWORLD kernels.SGHMC kernels.SGNHT "
            "kernels.sgld_variance kernels.sgworld_variance",
        ),
        ("Noise that depends on the state", "kernels.StateDependentLangevin"),
        ("Many wells", "kernels.ReplicaExchange kernels.find_wells kernels.mixing"),
        ("Interacting particles", "kernels.MeanFieldLangevin"),
        ("Bias of a finite step", "kernels.step_size_bias"),
        ("Draws as an ArviZ tree, from stores, on grids and several devices", "sample"),
    ),
    *_area(
        "Comparison",
        ("Verdicts in parts, each with a practical margin", "compare"),
        ("Where a difference comes from", "comparison.gap_decomposition"),
        ("Calibration and power of the tests", "comparison.calibrate"),
        ("Laws fitted to endpoints", "comparison.fit_law comparison.compare_laws"),
    ),
)
