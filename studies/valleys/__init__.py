"""Parts of the study of valleys: a ring of minima, two valleys, and variance against flatness."""
