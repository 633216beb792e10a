"""Parts of the study of anisotropic noise: the plane with two basins, and a network."""
