"""The errata of the theory as figures; importing this registers all of them."""

from studies.errata import anisotropic_noise as anisotropic_noise
from studies.errata import balance as balance
from studies.errata import diagonal_network as diagonal_network
from studies.errata import escape as escape
from studies.errata import large_steps as large_steps
from studies.errata import loss_scaled_noise as loss_scaled_noise
from studies.errata import phase_space as phase_space
from studies.errata import valley as valley
from studies.errata.erratum import ERRATA, Curves, Demonstration, Erratum

__all__ = ["ERRATA", "Curves", "Demonstration", "Erratum"]
