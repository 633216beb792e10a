"""Parts of the study of noise that scales with the loss."""
