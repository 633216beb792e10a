"""Sweeps of studies from the command line."""

import dataclasses
import json
import sys
import types

import pandas
import pytest
import xarray as xr

import statsgd
import studies.__main__
from studies import sweeping
from studies.outcome import OutputFolderError


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings."""

    rate: float = 0.1
    size: int = 1
    exact: bool = False
    sizes: tuple = ()
    seed: int = 3
    output: str = "results"
    progress: bool = False


def run(config):
    """A study that takes no time."""
    if config.rate > 1:
        raise ValueError(f"rate must be at most 1, got {config.rate}")
    tree = xr.DataTree()
    summary = {"law": {"ratio": config.rate * config.size, "verdict": "agrees", "no": None}}
    tree.attrs = {
        "summary": json.dumps(summary | {"seed": config.seed, "exact": config.exact}),
        "finding": f"rate {config.rate}\nand more",
    }
    return tree


@pytest.fixture
def study(monkeypatch):
    module = types.ModuleType("studies.quick")
    module.Config, module.run = Config, run
    monkeypatch.setitem(sys.modules, "studies.quick", module)
    monkeypatch.setattr(studies.__main__, "names", lambda: ["quick"])
    # The command sets the number of devices, which is too late in a process that computes.
    monkeypatch.setattr(studies.__main__.jax.config, "update", lambda *setting: None)
    return module


def command(*options):
    return studies.__main__.main(["quick", *options])


@pytest.mark.usefixtures("study")
def test_a_sweep_shows_its_cells_and_keeps_their_summaries(tmp_path, capsys):
    folder = tmp_path / "out"
    options = ["--sweep", "rate=0.5,2", "size=1,4", "--output", str(folder)]
    assert command(*options) == 1
    said = capsys.readouterr()
    assert "rate=0.5, size=4: rate 0.5\n" in said.out
    assert "rate=2.0, size=1: ValueError: rate must be at most 1, got 2.0" in said.out
    assert "2 of 4 cells" in said.out
    assert "the others failed" in said.err
    table = pandas.read_csv(folder / "sweep.csv", index_col=["rate", "size"])
    assert table["law.ratio"].to_dict() == {(0.5, 1): 0.5, (0.5, 4): 2.0}
    assert table["law.verdict"].tolist() == ["agrees"] * 2
    tree = statsgd.sweeps.read(folder / "sweep.zarr")
    seeds = tree["cells"].seed.sel(rate=0.5).values.tolist()
    assert tree["results"].seed.sel(rate=0.5).values.tolist() == seeds
    # Where and how it is shown is no part of a sweep; what is swept is.
    assert command(*options, "--progress") == 1
    assert command("--sweep", "rate=0.5", "--output", str(folder)) == 2
    assert "sweep = {'rate': [0.5, 2.0], 'size': [1, 4]} there" in capsys.readouterr().err


def test_partial_results_are_there_while_it_runs(tmp_path, study):
    rows = []

    def stop(config):
        if (tmp_path / "sweep.csv").exists():
            rows.append(len(pandas.read_csv(tmp_path / "sweep.csv")))
        if config.size == 3:
            raise KeyboardInterrupt
        return run(config)

    study.run = stop
    config = Config(output=str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        sweeping.deliver("quick", config, ["size=1,2,3,4"], "serial")
    assert rows == [1, 2]
    study.run = run
    assert sweeping.deliver("quick", config, ["size=1,2,3,4"], "serial") == 0
    assert len(pandas.read_csv(tmp_path / "sweep.csv")) == 4


@pytest.mark.parametrize(
    ("assignments", "complaint"),
    [
        (["rate"], "must be NAME=VALUE"),
        (["rate="], "must be NAME=VALUE"),
        (["speed=1"], "must name one of rate, size, exact, seed, got 'speed'"),
        (["output=a,b"], "must name one of"),
        (["sizes=1"], "must name one of"),
        (["size=1.5"], "--sweep size must be of type int, got '1.5'"),
        (["exact=maybe"], "--sweep exact must be of type bool, got 'maybe'"),
        (["rate=1", "rate=2"], "must name a setting once, got 'rate' again"),
    ],
)
def test_what_cannot_be_swept_is_said(assignments, complaint):
    with pytest.raises(ValueError, match=complaint):
        sweeping.axes(Config(), assignments)
    values = sweeping.axes(Config(), ["exact=true,False", "rate=1e-3"])
    assert values == {"exact": [True, False], "rate": [1e-3]}


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(OutputFolderError, match="which holds other files"):
        sweeping.deliver("quick", Config(output=str(tmp_path)), ["size=1"], "serial")


@pytest.mark.usefixtures("study")
def test_a_scheduler_that_is_not_there_is_one_line(tmp_path, capsys, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("statsgd.sweeps.distributed._TIMEOUT", "0.5s")
    options = ["--sweep", "size=1", "--output", str(tmp_path), "--executor"]
    assert command(*options, "tcp://127.0.0.1:9") == 2
    assert "error: executor must be the address of a running dask" in capsys.readouterr().err
    assert command(*options, "threads") == 2
    assert "error: executor must be None, 'serial', 'processes'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_digits_study_sweeps_over_processes(tmp_path):
    # Small, but the real study through the real command: two cells, one of which diverges.
    from tests.studies.test_digits_regression import command

    run = command(
        "digits_regression", "--sweep", "learning_rate=0.1,6.0", "--executor", "processes",
        "--replicas", "64", "--late-steps", "8", "--chains", "2", "--draws", "100",
        "--no-progress", "--output", str(tmp_path / "out"),
    )  # fmt: skip
    assert run.returncode == 1, run.stderr
    assert "learning_rate=6.0: ValueError: learning_rate must be below" in run.stdout
    table = pandas.read_csv(tmp_path / "out" / "sweep.csv", index_col="learning_rate")
    assert table.index.tolist() == [0.1]
    assert 0.5 < table["LinearRegressionGaussian.mean_ratio"][0.1] < 2


def test_a_study_that_is_a_sweep_keeps_its_own_executor():
    atlas = studies.__main__.load("atlas")
    options = {field.name for field in dataclasses.fields(studies.__main__.command(atlas.Config()))}
    assert options == {"config"}
    assert {"sweep", "executor"} <= {
        field.name for field in dataclasses.fields(studies.__main__.command(Config()))
    }
