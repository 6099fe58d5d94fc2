"""RecordIO as MXNet reads it: a second opinion on files that `harness.data.packing` has written."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import mxnet as mx
import numpy as np

from harness.data.record_format import Record
from harness.errors import DataError

MXNET = f"MXNet {mx.__version__}"


def records_by_mxnet(path: Path, index: Path) -> Generator[Record]:
    """Every record of a file, in the order of its index, as MXNet's reader and `mx.recordio.unpack` find it.

    Args:
        path: of the .rec file.
        index: of the .idx file.

    Raises:
        DataError: if MXNet cannot read it.
    """
    try:
        reader = mx.recordio.MXIndexedRecordIO(str(index), str(path), "r")
        try:
            for key in reader.keys:
                header, content = mx.recordio.unpack(reader.read_idx(key))
                yield Record(np.atleast_1d(np.asarray(header.label, np.float32)), header.id, memoryview(content))
        finally:
            reader.close()
    except mx.MXNetError as error:
        raise DataError(f"{path}: MXNet cannot read it: {str(error).strip().splitlines()[-1]}") from error
