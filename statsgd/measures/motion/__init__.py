"""Motion of stationary runs: displacement, variance, currents, fluctuation–dissipation."""
