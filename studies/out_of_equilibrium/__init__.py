"""Parts of the study `equilibrium_or_not`, one file for each subject."""
