"""Parts of the study of the limiting dynamics: heavy-ball SGD in phase space."""
