"""What theory predicts: stationary laws of SGD, in one room a family with its formulas.

Every module below is imported here, and every law that one registers is handed out: a new law
touches no file but its own. Formulas are reached through their family.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING

from statsgd.laws import atlas
from statsgd.laws.battery import check
from statsgd.laws.law import LAWS, ImproperLawError, IntractableError, Law, register
from statsgd.laws.overview import applicable, catalogue

if TYPE_CHECKING:  # what the loop below does, said to those who only read
    from statsgd.laws.balance import *
    from statsgd.laws.bases import *
    from statsgd.laws.gibbs import *
    from statsgd.laws.grids import *
    from statsgd.laws.heavy_tails import *
    from statsgd.laws.loss_noise import *
    from statsgd.laws.mean_field import *
    from statsgd.laws.minimum import *
    from statsgd.laws.networks import *
    from statsgd.laws.valleys import *

_FAMILIES = []
for _module in pkgutil.walk_packages(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
    if _module.ispkg:
        _FAMILIES.append(_module.name.rpartition(".")[2])
globals().update(LAWS)

__all__ = [
    "LAWS",
    "ImproperLawError",
    "IntractableError",
    "Law",
    "applicable",
    "atlas",
    "catalogue",
    "check",
    "register",
]
__all__.extend([*_FAMILIES, *LAWS])


def __dir__() -> list[str]:
    return sorted(__all__)
