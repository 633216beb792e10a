"""How programs are compiled where studies, notebooks and tests run, and that they are kept."""

import importlib.util
import os
from pathlib import Path

import jax

#: Beside the results; `make clean` takes it with them.
FOLDER = Path("results", ".compiled")
#: What JAX reads, here and in processes that are started from here. With a size it locks files.
_SETTINGS = {
    "jax_compilation_cache_dir": FOLDER,
    "jax_compilation_cache_max_size": 2**30,
    "jax_persistent_cache_min_compile_time_secs": 0.1,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def keep_compiled() -> None:
    """Keep compiled programs in `FOLDER`, for the next study and the next run of this one.

    Settings of the user's own count: with a folder of theirs, or none on purpose, nothing is done.
    Nor without the package filelock, without which two studies might write one file at a time.
    """
    chosen = jax.config.jax_compilation_cache_dir is not None or "JAX_COMPILATION_CACHE_DIR" in (
        os.environ
    )
    if chosen or not jax.config.jax_enable_compilation_cache:
        return
    if importlib.util.find_spec("filelock") is None:
        return
    for name, value in _SETTINGS.items():
        told = str(value.resolve()) if isinstance(value, Path) else value
        if name.upper() not in os.environ:
            os.environ[name.upper()] = str(told)
            jax.config.update(name, told)


def in_one_piece() -> None:
    """Have XLA compile every program in one piece, here and in processes started from here.

    By itself it makes 32 pieces of each, however small it is, to compile them in parallel, which
    takes a quarter more processor time for programs like ours. It reads this once, before it
    computes anything. A setting of the user's own counts.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if "parallel_codegen" not in given:
        os.environ["XLA_FLAGS"] = f"--xla_cpu_parallel_codegen_split_count=1 {given}"
