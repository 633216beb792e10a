"""Parts of the study of the law of balance."""
