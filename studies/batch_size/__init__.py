"""Parts of the study of large batches: two wells, escape times and a network."""
