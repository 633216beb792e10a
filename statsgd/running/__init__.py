"""How replicas and chains are run: in blocks on devices, chunk by chunk, recorded on the way."""

from statsgd.running.interruption import Interrupted
from statsgd.running.random_stream import STREAM, stream_key

__all__ = ["STREAM", "Interrupted", "stream_key"]


def __dir__() -> list[str]:
    return sorted(__all__)
