"""How many programs JAX compiles: counted, where times would depend on the machine."""

import contextlib
from collections.abc import Callable, Iterator

import jax

_LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"


@contextlib.contextmanager
def compilations() -> Iterator[Callable[[], int]]:
    """A function that says how many programs were lowered since the block began.

    Lowering is counted, not compiling: a program from JAX's persistent cache is lowered too.
    """
    found: list[str] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == _LOWERED:
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield lambda: len(found)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
