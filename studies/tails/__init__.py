"""Parts of the study of heavy tails."""
