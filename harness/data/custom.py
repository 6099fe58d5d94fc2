"""`package.module:function`: data from the user's own function.

The function is called with `data.params`, and with `root` if it has an argument of that name. It returns

- `(train, test)`, or
- a mapping with `train` and optionally `validation`, `test` and `num_classes`, or
- a `Splits`,

where a split is a pair `(data, label)` of arrays, one of the harness's data sets, or anything with a length and items
`(data, label)`, such as a `gluon.data.Dataset`. Data and labels may each be a tuple or a dict of arrays, in a split as
in an item; `(a, b, label)` is `((a, b), label)`. With a transform, items may be anything of which it makes such pairs.
`harness.named` says where the module is looked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from harness.data.arrays import ArrayDataset, Dataset, Subset, as_array, default_scales
from harness.data.collated import CollatedDataset
from harness.data.functions import Functions
from harness.data.leaves import Data, each_leaf, leaves_of
from harness.data.request import Counts, DataRequest
from harness.data.sequences import Items, SequenceDataset
from harness.data.splits import Splits, as_num_classes, make_splits
from harness.errors import DataError, HarnessError
from harness.named import kind_of, load_function, where_raised

_NONE = Functions()
_ALLOWED = (
    "return (train, test), a mapping with train, validation, test and num_classes, or harness.data.Splits, where a "
    "split is a pair (data, label) of arrays, or a data set with items (data, label)"
)


def load_custom(request: DataRequest) -> Splits:
    """Call the function and check its result.

    Raises:
        DataError: if the function cannot be imported or called, fails, or returns something else.
    """
    request.refuse("download")
    function = load_function(request.name, "data.name", DataError)
    arguments = _arguments(request, function)
    try:
        returned = function(**arguments)
    except HarnessError:
        raise
    except (Exception, SystemExit) as error:
        raise DataError(
            f"{request.where}: raised {type(error).__name__}: {error} (at {where_raised(error)})"
        ) from error
    return _as_splits(request, returned)


def count_custom(request: DataRequest) -> Counts:
    """The sizes of the function's result; only calling it can tell."""
    splits = load_custom(replace(request, labels_are_numbers=True))
    return Counts(len(splits.train), len(splits.validation or ()), len(splits.test or ()))


def _arguments(request: DataRequest, function: Callable[..., object]) -> dict[str, object]:
    """`params`, and `root` if the function takes it; anything that does not fit the signature is an error."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise DataError(f"{request.where}: cannot determine its parameters ({error}); name a function") from error
    arguments = dict(request.params)
    if request.root is not None:
        if "root" not in signature.parameters:
            raise DataError(
                f"{request.where}: data.root has no effect, because the function takes {signature}; remove it, or give "
                f"the function an argument named root"
            )
        arguments.setdefault("root", str(request.root))
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise DataError(
            f"{request.where}: cannot be called with {arguments}: {error}; it takes {signature}, from data.params and "
            "data.root"
        ) from error
    return arguments


def _as_splits(request: DataRequest, value: object) -> Splits:
    where, num_classes = request.where, None
    parts: Mapping[str, object]
    if isinstance(value, Splits):
        parts = {"train": value.train, "validation": value.validation, "test": value.test}
        num_classes = value.num_classes
    elif isinstance(value, Mapping):
        unknown = sorted(str(key) for key in set(value) - {"train", "validation", "test", "num_classes"})
        if unknown or "train" not in value:
            raise DataError(f"{where}: returned a mapping with {sorted(map(str, value))}; {_ALLOWED}")
        parts = {key: part for key, part in value.items() if key != "num_classes"}
        num_classes = as_num_classes(where, value.get("num_classes"))
    elif isinstance(value, tuple | list) and len(value) == 2 and not _is_array(value[0]):
        parts = {"train": value[0], "test": value[1]}
    else:
        raise DataError(f"{where}: returned {_describe(value)}; {_ALLOWED}")
    splits = {
        name: as_dataset(f"{where}, {name}", part, functions=request.functions)
        for name, part in parts.items()
        if part is not None
    }
    if "train" not in splits:
        raise DataError(f"{where}: returned no training split; {_ALLOWED}")
    validation, test = splits.get("validation"), splits.get("test")
    numbers = request.labels_are_numbers
    count_classes = None if numbers is None else not numbers
    return make_splits(splits["train"], validation, test, num_classes, count_classes)


def as_dataset(where: str, value: object, allowed: str = _ALLOWED, functions: Functions = _NONE) -> Dataset:
    """A split from what a user gives: two arrays, a data set of ours, or anything with a length and items.

    Args:
        where: it comes from, for messages.
        value: the split.
        allowed: the end of the message about anything else.
        functions: without which items could not be read; `with_functions` adds what is missing then.

    Raises:
        DataError: naming what was found instead.
    """
    if isinstance(value, ArrayDataset | SequenceDataset | Subset | CollatedDataset):
        return value
    arrays = _arrays(value)
    if arrays is not None:
        data, label = arrays
        return ArrayDataset(data, label, default_scales(data), where)
    if isinstance(value, Items) and not isinstance(value, str | Mapping) and not _is_array(value):
        is_ragged = functions.collate is not None
        return SequenceDataset(value, source=where, transform=functions.transform, is_ragged=is_ragged)
    raise DataError(f"{where}: found {_describe(value)}; {allowed}")


def _arrays(value: object) -> tuple[Data, Data] | None:
    """Data and labels, if a split is a pair of arrays, or of tuples or dicts of them, or `(a, b, label)`.

    A list is one of items, unless it holds data and labels as two arrays, or data as several and labels as one.
    """
    if not isinstance(value, tuple | list) or len(value) < 2 or (isinstance(value, list) and not _is_array(value[-1])):
        return None
    *inputs, label = value
    data = inputs[0] if len(inputs) == 1 else tuple(inputs)
    if not (_is_nested(data) and _is_nested(label)) or (len(inputs) > 1 and not isinstance(value, tuple)):
        return None
    return each_leaf(as_array, data), each_leaf(as_array, label)


def _is_nested(value: object) -> bool:
    """Whether it is an array, or a tuple or dict of arrays."""
    if not isinstance(value, tuple | dict):
        return _is_array(value)
    return len(value) > 0 and all(map(_is_array, leaves_of(value)))


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _describe(value: object) -> str:
    return f"{kind_of(value)} of {len(value)}" if isinstance(value, tuple | list) else kind_of(value)
