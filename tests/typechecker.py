"""The run-time type checker of the tests: beartype, with `Self` left unchecked.

jaxtyping checks methods one by one, outside their class, where beartype cannot know what `Self` is.
"""

from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype

_check = beartype(conf=BeartypeConf(is_pep484_tower=True, hint_overrides=FrozenDict({Self: Any})))


def check(function):
    """`function` with its types checked; the checks are made at its first call.

    They take longer to make than all else of the import, and no process calls every function.
    """
    checked = None

    def called(*arguments, **keywords):
        nonlocal checked
        if checked is None:
            checked = _check(function)
        return checked(*arguments, **keywords)

    return called
