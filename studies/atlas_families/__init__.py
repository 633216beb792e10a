"""The families of problems that laws speak about; importing this registers all of them."""

from studies.atlas_families import balance as balance
from studies.atlas_families import gaussian as gaussian
from studies.atlas_families import mean_field as mean_field
from studies.atlas_families import valleys as valleys
from studies.atlas_families import wells as wells
from studies.atlas_families.family import FAMILIES, Cell, Family

__all__ = ["FAMILIES", "Cell", "Family"]
