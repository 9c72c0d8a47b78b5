# SPDX-License-Identifier: MIT
"""All metadata of dummymp, written once. (pyproject.toml only says how to build, and sets up the tools.)"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent


def read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def version() -> str:
    """Find the version in the text of the package: importing it would need what is not installed yet."""
    found = re.search(r'^__version__ = "([^"]+)"$', read("dummymp/__init__.py"), re.MULTILINE)
    if found is None:
        raise RuntimeError('dummymp/__init__.py has no line of the form: __version__ = "1.2.3"')
    return found.group(1)


EXTRAS = {
    "progress": ["tqdm>=4.60"],
    "arrays": ["numpy>=1.22"],
}

setup(
    name="dummymp",
    version=version(),
    description="Multiprocessing for people who have never started a process",
    long_description=read("README.md"),
    long_description_content_type="text/markdown",
    author="dummymp contributors",
    license="MIT",
    license_files=["LICENSE"],
    keywords=["multiprocessing", "parallel", "queue", "workers", "beginners", "shared server"],
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.9",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Programming Language :: Python :: 3.15",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
    packages=["dummymp"],
    package_data={"dummymp": ["py.typed"]},
    python_requires=">=3.9",
    install_requires=["psutil>=5.9", "cloudpickle>=3.0"],
    extras_require={
        **EXTRAS,
        # The tests build a wheel; setuptools 70.1 is the first that needs no other package for it.
        "test": [
            *EXTRAS["progress"],
            *EXTRAS["arrays"],
            "hypothesis>=6.80",
            "loguru>=0.7.0",
            "pytest>=7.4",
            "setuptools>=70.1",
        ],
        # The pools that benchmarks/ puts side by side.
        "bench": [*EXTRAS["arrays"], "joblib>=1.3", "loky>=3.4", "mpire>=2.8", "pebble>=5.0"],
    },
    zip_safe=False,
)
