"""What a worker's process sees of the machine: how many threads, and which GPU."""

import os
import tempfile
import threading
from importlib import metadata
from pathlib import Path
from typing import Any

from statsgd.sweeps.work import Work

_claimed: dict[str, Any] = {}  # the GPU of this process, by its lock file, held until it ends
_one_at_a_time = threading.Lock()


def gpus() -> list[str]:
    """Identifiers of the NVIDIA GPUs that JAX may use here; empty where it has no plugin for them.

    JAX is not asked: the first process that starts it takes most of a GPU's memory.
    """
    platforms = os.environ.get("JAX_PLATFORMS", "")
    plugins = [plugin.name for plugin in metadata.entry_points(group="jax_plugins")]
    if not any("cuda" in name for name in plugins) or platforms == "cpu":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    nodes = [node.name.removeprefix("nvidia") for node in Path("/dev").glob("nvidia[0-9]*")]
    return sorted(nodes, key=int)


def prepare(work: Work, threads: int) -> None:
    """Make this process a worker, before JAX has started in it.

    It gets one pool of `threads` threads for JAX, the numerical settings of the caller and, where
    there are GPUs, one that no other worker on this machine has. Does nothing the second time.

    Raises `RuntimeError` if all GPUs are taken.
    """
    with _one_at_a_time:
        work.take_on_numerics()
        if _claimed:
            return
        os.environ["NPROC"] = str(threads)  # the size of the thread pool of JAX's CPU backend
        found = gpus()
        if found:
            os.environ["CUDA_VISIBLE_DEVICES"] = claim(found)
        else:
            _claimed["none"] = None


def claim(identifiers: list[str]) -> str:
    """One of the GPUs, for as long as this process lives.

    Raises `RuntimeError` if other processes of this user hold all of them.
    """
    import fcntl

    for identifier in identifiers:
        name = f"statsgd-{os.getuid()}-gpu-{identifier.replace('/', '-')}.lock"
        lock = (Path(tempfile.gettempdir()) / name).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        _claimed[identifier] = lock
        return identifier
    raise RuntimeError(
        f"there must be a GPU for every worker, and other workers hold all of them: "
        f"{', '.join(identifiers)}"
    )
