"""A rank that trains nothing: takes a run's folder, as training does, and ends as it is told.

`short_rank.py FOLDER CODES`: at the first start it ends with the first of the codes, at the second with the second, ...
"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from harness.errors import ConfigError
from harness.folder import RunFolder
from harness.folder.outcome import OutcomeFiles

folder, codes = Path(sys.argv[1]), [int(code) for code in sys.argv[2].split(",")]
files = OutcomeFiles(0, secrets.token_hex(4))
files.announce()
try:
    RunFolder(folder).open()
except ConfigError as error:
    files.write(2, str(error))
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
starts = folder / "starts"
starts.write_text(starts.read_text() + "." if starts.exists() else ".")
code = codes[len(starts.read_text()) - 1]
files.write(code, "as it was told")
sys.exit(code)
