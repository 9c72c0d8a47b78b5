# SPDX-License-Identifier: MIT
"""What the modules that `import dummymp` loads need of `typing`, which takes as long to load as all the rest of them.

Type checkers hold TYPE_CHECKING for True wherever it comes from, and see the real thing.
"""

from __future__ import annotations

import types

__all__ = ["TYPE_CHECKING", "Generic", "T"]

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Generic, TypeVar

    T = TypeVar("T")
else:
    T = None

    class Generic:
        """Lets ``Task[int]`` be written in annotations."""

        __slots__ = ()

        def __class_getitem__(cls, item):
            """Write ``Task[int]`` in an annotation for a task that returns an int."""
            return cls if cls is Generic else types.GenericAlias(cls, item)
