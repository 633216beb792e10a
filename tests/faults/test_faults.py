"""Faults on purpose, a few of each kind: `python -m tests.faults` has all of them."""

import pytest

from tests.faults.company import company
from tests.faults.configurations import configurations
from tests.faults.damage import damaged_stores
from tests.faults.disks import disks, small_disk
from tests.faults.divergence import divergence
from tests.faults.files import files
from tests.faults.kills import kills
from tests.faults.labels import labels
from tests.faults.trees import trees
from tests.faults.workers import workers

pytestmark = [
    # Users run without the type checker, and what warns in the middle of a fault is meant.
    pytest.mark.usefixtures("unchecked"),
    pytest.mark.filterwarnings("default"),
]


def nothing_wrong(found, trials):
    assert found.wrong == ()
    assert found.right + found.named == found.trials >= trials


def test_data_files_are_read_or_refused(tmp_path):
    nothing_wrong(files(tmp_path, 60, 1), 60)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inflict", "trials"),
    [
        (kills, 12),
        (damaged_stores, 120),
        (company, 3),
        (workers, 4),
        (configurations, 80),
        (labels, 12),
        (trees, 12),
    ],
)
def test_every_fault_ends_in_the_right_answer_or_its_name(tmp_path, inflict, trials):
    nothing_wrong(inflict(tmp_path, trials, 1), trials)


@pytest.mark.slow
def test_disks_that_are_full_or_read_only(tmp_path):
    try:
        with small_disk(tmp_path / "trial", "64k"):
            pass
    except PermissionError as error:
        pytest.skip(str(error))
    nothing_wrong(disks(tmp_path, 3, 1), 12)


@pytest.mark.slow
def test_of_very_many_replicas_none_is_lost():
    nothing_wrong(divergence(100_000, 1), 100_000)
