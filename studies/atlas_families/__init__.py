"""The families of problems that laws speak about; importing this registers all of them."""

from studies.atlas_families import balance as balance
from studies.atlas_families import finite_steps as finite_steps
from studies.atlas_families import gaussian as gaussian
from studies.atlas_families import loss_scaled as loss_scaled
from studies.atlas_families import mean_field as mean_field
from studies.atlas_families import two_wells as two_wells
from studies.atlas_families import valleys as valleys
from studies.atlas_families import wells as wells
from studies.atlas_families import zero_loss_sets as zero_loss_sets
from studies.atlas_families.family import FAMILIES, AtlasCell, Family

__all__ = ["FAMILIES", "AtlasCell", "Family"]
