"""The run-time type checker of the tests: beartype, with `Self` left unchecked.

jaxtyping checks methods one by one, outside their class, where beartype cannot know what `Self` is.
"""

from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype
from jaxtyping._import_hook import JaxtypingTransformer

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


def leave_inner_functions():
    """Have functions within functions left unchecked: they are made, and their checks with them,
    at every call of the outer one."""

    def visit(self, node):
        self.generic_visit = lambda node: node
        try:
            return outermost(self, node)
        finally:
            del self.generic_visit

    outermost = JaxtypingTransformer.visit_FunctionDef
    JaxtypingTransformer.visit_FunctionDef = visit
