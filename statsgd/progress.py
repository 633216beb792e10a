"""Bars of progress are seen where somebody watches, and nowhere else."""


def silent(progress: bool) -> bool | None:
    """The `disable` of a bar: None leaves it to tqdm, which is silent where nobody watches."""
    return None if progress else True
