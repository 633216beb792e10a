"""Forms that laws share: Gaussian, Student-t, a potential, a table on the line."""

from statsgd.laws.bases.gaussian import GaussianLaw
from statsgd.laws.bases.potential import PotentialLaw
from statsgd.laws.bases.slope import SlopeLaw
from statsgd.laws.bases.student_t import StudentTLaw

__all__ = ["GaussianLaw", "PotentialLaw", "SlopeLaw", "StudentTLaw"]


def __dir__() -> list[str]:
    return sorted(__all__)
