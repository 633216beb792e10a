"""One call that says what the laws of this library mean for one's own network."""

from statsgd.diagnosis.diagnose import diagnose
from statsgd.diagnosis.request import CheckpointWarning

__all__ = ["CheckpointWarning", "diagnose"]


def __dir__() -> list[str]:
    return sorted(__all__)
