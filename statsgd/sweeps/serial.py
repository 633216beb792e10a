"""One cell after the other in this process: what every other executor must equal."""

from collections.abc import Iterator, Sequence

from statsgd.sweeps.work import Task, TaskResult, Work


class Serial:
    """Runs cells where `sweep` was called, in order."""

    def outcomes(self, work: Work, tasks: Sequence[Task], retries: int) -> Iterator[TaskResult]:
        """Results in the order of `tasks`. `retries` has no meaning: the only worker is us."""
        for task in tasks:
            yield TaskResult(task, work(task.cells))
