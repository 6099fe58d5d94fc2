"""Lets MXNet 1.9.1 work with every NumPy from 1.23 on.

Importing this package registers a finder, and does nothing else: no other program than one that imports `mxnet` is
changed. A `.pth` file imports it when an interpreter starts, so that Horovod's build and programs that import MXNet
before the harness find it at work. What is done to MXNet and NumPy stands in `mending`, which is loaded with MXNet.
"""

import sys

TYPE_CHECKING = False  # typing is not imported: every interpreter of the environment would wait for it
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["added"]


class MxnetFinder:
    """Has modules of MXNet mended while they are loaded; it leaves finding them to the finders behind it."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """The spec of a module that is mended, or `None`: the next finder is asked, as if this one were not there."""
        if name != "mxnet" and not name.startswith("mxnet."):
            return None
        from harness_compat.mending import mended_spec

        return mended_spec(self, name, path, target)


def added() -> tuple[str, ...]:
    """The names that NumPy was given in this process, because MXNet needs them; empty before MXNet is imported."""
    mending = sys.modules.get("harness_compat.mending")
    return tuple(mending.ADDED) if mending else ()


if not any(type(finder).__module__ == __name__ for finder in sys.meta_path):
    sys.meta_path.insert(0, MxnetFinder())
