"""`python -m notebooks` executes every notebook in place; with CI set, nothing is written."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from studies.compiled import in_one_piece

FOLDER = Path(__file__).parent


def execute(path: Path) -> str:
    """Execute one notebook; returns its error, or an empty word."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(FOLDER.parent)}}
    try:
        NotebookClient(notebook, timeout=900, resources=resources).execute()
    except CellExecutionError as error:
        return str(error)
    _drop_progress_bars(notebook)
    if not os.environ.get("CI"):
        nbformat.write(notebook, path)
    return ""


def _drop_progress_bars(notebook: nbformat.NotebookNode) -> None:
    """A bar says nothing once it is full, and pages would ask the network for its script."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                output
                for output in cell.outputs
                if "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
            ]


def main(names: list[str]) -> int:
    """Execute the notebooks named, or all; returns the number of those that failed."""
    paths = sorted(FOLDER.glob("*.ipynb"))
    if names:
        paths = [path for path in paths if path.stem in names]
    in_one_piece()
    # Each has a kernel of its own: these threads only wait for it.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        errors = list(pool.map(execute, paths))
    for path, error in zip(paths, errors, strict=True):
        print(f"{path.name}: {'failed' if error else 'fine'}", flush=True)
        if error:
            print(error, file=sys.stderr)
    return sum(map(bool, errors))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
