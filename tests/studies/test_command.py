"""The command line of the studies: what it says, and what it looks at before it computes."""

import dataclasses
import json
import types

import pytest
import xarray as xr

from statsgd.comparison import Claim, Quantity
from studies import __main__ as command
from studies.outcome import OutputFolderError, deliver


@dataclasses.dataclass(frozen=True)
class Config:
    """Nothing to choose."""

    output: str = "out"
    progress: bool = False


def study(runs):
    def run(config):
        runs.append(config)
        part = Claim("One is one.", "derived", [Quantity("x", 1.0, 0.01, 1.0, "=", 0.1)])
        tree = xr.DataTree.from_dict({"one": part.to_datatree()})
        tree.attrs |= {"finding": "found", "summary": "{}", "kind": "study"}
        return tree

    return types.SimpleNamespace(run=run, Config=Config)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path):
    runs = []
    (tmp_path / "file").write_text("")
    config = Config(output=str(tmp_path / "file" / "below"))
    with pytest.raises(OutputFolderError, match="output must be a folder that can be written to"):
        deliver("a_study", study(runs), config)
    assert not runs


def test_results_stand_beside_the_page(tmp_path):
    pytest.importorskip("zarr")
    outcome = deliver("a_study", study([]), Config(output=str(tmp_path / "out")))
    kept = xr.open_datatree(outcome.report.parent / "results.zarr", consolidated=False)
    assert kept["one"].attrs["verdict"].startswith("holds")


@pytest.fixture(autouse=True)
def _devices_as_they_are(monkeypatch):
    monkeypatch.setattr(command.jax.config, "update", lambda *_: None)


def test_help_tells_of_quick(capsys):
    with pytest.raises(SystemExit):
        command.run_one("mean_field", ["--help"], quick=False)
    assert "--quick" in capsys.readouterr().out


def test_ctrl_c_says_what_is_kept(tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "deliver", stop)
    for kept, words in ((False, "nothing was written"), (True, "the same command goes on")):
        if kept:
            (tmp_path / "config.json").write_text("{}")
        status = command.run_one("mean_field", ["--output", str(tmp_path)], quick=True)
        assert status == 130
        assert words in capsys.readouterr().err


def test_all_studies_say_how_long_each_took(tmp_path, monkeypatch, capsys):
    # Processes that take 65 and 7 seconds of a clock of their own; the second one fails.
    clock = types.SimpleNamespace(now=0.0)

    def run(told, **_):
        name = told[3]
        assert told[-1] == "--quick"
        clock.now += {"first": 65.25, "second": 7.0}[name]
        if name == "second":
            return types.SimpleNamespace(returncode=1, stderr="Error: no luck")
        folder = command.folder(name, quick=True)
        folder.mkdir(parents=True)
        summary = {"title": name, "question": "", "sections": []}
        (folder / "summary.json").write_text(json.dumps(summary))
        return types.SimpleNamespace(returncode=0, stderr="")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "names", lambda: ["first", "second"])
    monkeypatch.setattr(command, "subprocess", types.SimpleNamespace(run=run, PIPE=None))
    monkeypatch.setattr(command, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))
    assert command.main(["all", "--quick"]) == 1
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["first", "65", "s"] in said
    assert ["second", "7", "s", "failed"] in said
    assert ["all", "72", "s"] in said
    kept = tmp_path / "results" / "quick"
    assert (kept / "times.csv").read_text() == (
        "study,seconds,ended\nfirst,65.2,well\nsecond,7.0,failed\n"
    )
    page = (kept / "gallery.html").read_text()
    assert "<tr><td>first</td><td>65</td></tr>" in page
    assert "Error: no luck" in page
