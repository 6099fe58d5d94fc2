"""`launch/train.py` for many command lines in one process: reads them as JSON lines, writes how each ended as one.

A run that takes longer than a minute ends the process; what was not answered then has not been tried.
"""

import contextlib
import faulthandler
import io
import json
import sys
import traceback
from pathlib import Path

from harness.cli import train

for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines():
    faulthandler.dump_traceback_later(60, exit=True)
    sys.argv = ["launch/train.py", *json.loads(line)]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = train.main()
    except SystemExit as leaving:
        code = leaving.code
    except BaseException:
        code = 1
        said.write(traceback.format_exc())
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps([code, said.getvalue()[-3000:]]), flush=True)
