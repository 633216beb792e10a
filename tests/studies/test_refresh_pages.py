"""The catalogue page: up to date, complete, and without a name that does not exist."""

import functools

import pytest

import statsgd
from statsgd.laws.law import LAWS
from statsgd.noise import NOISES
from studies.refresh_pages import CATALOGUE, catalogue_page
from studies.topics import TOPICS


@pytest.mark.slow
def test_page_is_up_to_date():
    assert CATALOGUE.read_text() == catalogue_page(), "run: python -m studies.refresh_pages"


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.subject)
def test_names_exist(topic):
    assert topic.places
    for place in topic.places:
        assert functools.reduce(getattr, place.split("."), statsgd).__doc__


def test_nothing_registered_is_missing():
    named = {place.split(".")[-1] for topic in TOPICS for place in topic.places}
    assert not (set(LAWS) | set(NOISES)) - named
