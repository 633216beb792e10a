"""Studies: one importable script per body of claims. `python -m studies` lists them.

Each module that is listed has a frozen dataclass `Config` (its command line), `run(config) ->
DataTree`, and a module docstring whose first line is its summary. The rest of the house:

- parts of studies, one file a subject: `anisotropy` (of `anisotropic_escape`), `atlas_families` and
  `errata` (of `atlas`), `balance` (`law_of_balance`), `batch_size` (`large_batch`), `digits`
  (`digits_regression`), `loss_noise` (`machine_learning_noise`), `out_of_equilibrium`
  (`equilibrium_or_not`), `networks` (`real_network`), `particles` (`mean_field`), `phase_space`
  (`limiting_dynamics`), `rest`
  (`optimisers_at_rest`), `tails` (`heavy_tails`), `valleys` (`effective_regularization`);
- what studies share: `digits_network`, `own_models`, `measured`, `findings`;
- the command line: `outcome`, `sweeping`; speed: `benchmark` with its `peers`;
- what pages show: `refresh_pages` with `claims_page` and `tables`.
"""
