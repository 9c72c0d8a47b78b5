# SPDX-License-Identifier: MIT
"""Classes of the main script that other libraries make: they come back as objects of the very class."""

from __future__ import annotations

import pytest
from conftest import Script

LIBRARIES = {
    "attrs": """
import attrs
@attrs.define
class Item:
    x: int
    up: Optional[Item] = None
@attrs.frozen(slots=True)
class Other:
    x: int = 0
    up: Optional[Other] = None
""",
    "pydantic": """
import pydantic
class Item(pydantic.BaseModel):
    x: int
    up: Optional[Item] = None
    kids: List[Item] = []
    @pydantic.field_validator("x")
    @classmethod
    def positive(cls, value): return abs(value)
class Other(Item):
    model_config = {"frozen": True}
    more: List[Other] = []
""",
    "msgspec": """
import msgspec
class Item(msgspec.Struct):
    x: int
    up: Optional[Item] = None
    kids: List[int] = msgspec.field(default_factory=list, name="children")
class Other(Item, kw_only=True, tag="other"):
    z: int = 0
    @property
    def twice(self): return self.x * 2
""",
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_models_come_back_as_they_are(script: Script, library: str) -> None:
    pytest.importorskip(library)
    done = script(
        f"""
from __future__ import annotations
import dummymp
from typing import List, Optional
{LIBRARIES[library]}
def same(item): return item
def grow(item): return type(item)(x=item.x + 1, up=item)
for item in (Item(x=1, up=Item(x=2)), Other(x=3, up=None)):
    for func in (same, grow):
        found = [dummymp.run(func, item).result(), *dummymp.map(func, [item] * 2)]
        assert all(type(each) is type(item) and each == func(item) for each in found), found
    made = dummymp.run(lambda: Other(x=7)).result()
    assert made == Other(x=7) and type(made) is Other
print("all good")
"""
    )
    assert (done.stdout, done.stderr) == ("all good\n", "")
