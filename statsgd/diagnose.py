"""`python -m statsgd.diagnose my_file.py:make_problem`: the diagnosis from the command line."""

import sys

from statsgd.diagnosis import diagnose
from statsgd.diagnosis.command_line import main

if __name__ == "__main__":
    main()
else:
    # Importing a submodule puts it in the place of the function of the same name.
    sys.modules[__name__] = diagnose  # type: ignore[assignment]
