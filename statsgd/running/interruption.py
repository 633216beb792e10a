"""What a run that was stopped by hand leaves behind."""

import xarray as xr


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run; `result` holds what was recorded until then.

    It ends a script as any `KeyboardInterrupt` does. `except Interrupted as stop: stop.result` gets
    at the records, and so does `sys.last_value.result` after the traceback, in a notebook or at the
    prompt. `result.attrs["interrupted"]` is 1.
    """

    def __init__(self, message: str, result: xr.DataTree):
        super().__init__(message)
        result.attrs["interrupted"] = 1
        self.result = result
