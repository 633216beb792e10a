"""Curvature: matrices by their products, spectra, flatness of a minimum."""
