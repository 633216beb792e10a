"""Every break of a formula finds the formula that it breaks."""

import pytest

from tests.mutations import MUTATIONS, ROOT


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: f"{one.file}: {one.right}")
def test_what_is_broken_is_there_once(mutation):
    source = (ROOT / "statsgd" / mutation.file).read_text()
    assert source.count(mutation.right) == 1
    assert (ROOT / "tests" / mutation.tests.partition("::")[0]).exists()
