"""The run-time type checker of the tests: beartype, with `Self` left unchecked.

jaxtyping checks methods one by one, outside their class, where beartype cannot know what `Self` is.
"""

from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True, hint_overrides=FrozenDict({Self: Any})))
