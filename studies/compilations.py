"""How many programs JAX compiles, counted where times would depend on the machine, and how long."""

import contextlib
import dataclasses
from collections.abc import Iterator

import jax

_LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
_COMPILED = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass
class Compilations:
    """What JAX has compiled; called, the number of programs."""

    programs: int = 0
    """Lowered: a program from JAX's persistent cache is lowered too."""
    seconds: float = 0.0
    """In XLA, or in reading what it made from the persistent cache; tracing is not counted."""

    def __call__(self) -> int:
        """`programs`."""
        return self.programs


@contextlib.contextmanager
def compilations() -> Iterator[Compilations]:
    """What was compiled since the block began, by JAX's own events."""
    found = Compilations()

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == _LOWERED:
            found.programs += 1
        elif event == _COMPILED:
            found.seconds += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
