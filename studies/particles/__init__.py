"""Parts of the study `mean_field`, one file for each kind of network."""
