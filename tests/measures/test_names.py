"""What `statsgd.measures` shows: functions to call, and the rooms they live in."""

import types

import statsgd.measures as measures

ROOMS = {"balance", "curvature", "escape", "motion", "noise", "runs", "tails"}


def test_names_are_functions_and_rooms_have_names_of_their_own():
    shown = {name: getattr(measures, name) for name in dir(measures)}
    rooms = {name for name, one in shown.items() if isinstance(one, types.ModuleType)}
    assert rooms == ROOMS
    assert rooms.isdisjoint(measures.__all__)
    assert all(isinstance(getattr(measures, name), types.FunctionType) for name in measures.__all__)
    assert set(dir(measures)) == rooms | set(measures.__all__)
    assert len(measures.__all__) <= 110  # what tab completion shows can still be read


def test_no_module_has_the_name_of_a_function():
    modules = set()
    for room in ROOMS:
        inside = vars(getattr(measures, room)).values()
        modules |= {one.__name__.rpartition(".")[2] for one in inside if type(one) is type(types)}
    assert modules
    assert modules.isdisjoint(measures.__all__)
