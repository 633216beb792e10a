"""Parts of the study of optimisers at rest: linear ones, and adaptive ones."""
