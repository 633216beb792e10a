"""Parts of the study `real_network`: images, networks and their training."""
