"""What the package needs, by purpose; the versions stand in constraints.txt alone."""

from pathlib import Path

from setuptools import find_packages, setup

CUDA = ["cu102", "cu110", "cu112", "cu113", "cu114", "cu115", "cu116", "cu117"]

setup(
    name="mxnet-horovod-harness",
    version="0.1.0",
    description="Distributed MXNet/Gluon training with a scheduled learning rate",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.12",
    packages=find_packages(include=["harness", "harness.*"]),
    package_data={"harness.data": ["files/*"], "harness.report": ["templates/*"], "harness": ["py.typed"]},
    install_requires=[
        "numpy",
        "mpi4py",
        "pyyaml",
        "pydantic",
        "matplotlib",
        "rich",
        "jinja2",
        "pooch",
        "safetensors",
        "tensorboardX",
        "typing_extensions",
    ],
    extras_require={
        "cpu": ["mxnet", "horovod"],
        **{cuda: [f"mxnet-{cuda}", "horovod"] for cuda in CUDA},
        "mpich": ["mpich"],
        "benchmarks": ["torch"],
        "dev": ["pytest", "pytest-xdist", "ruff", "mypy", "types-PyYAML", "jsonschema", "tensorboard"],
    },
)
