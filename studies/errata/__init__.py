"""The errata of the theory as figures; importing this registers all of them."""

from studies.errata import balance as balance
from studies.errata import diagonal_network as diagonal_network
from studies.errata import phase_space as phase_space
from studies.errata import valley as valley
from studies.errata.erratum import ERRATA, Curves, Erratum, Shown

__all__ = ["ERRATA", "Curves", "Erratum", "Shown"]
