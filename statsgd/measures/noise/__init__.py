"""Gradient noise against curvature: alignment, leading directions, stability in mean square."""
