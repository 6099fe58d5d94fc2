"""What the package needs, by purpose; the versions stand in constraints.txt alone."""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

CUDA = ["cu102", "cu110", "cu112", "cu113", "cu114", "cu115", "cu116", "cu117"]


class BuildWithPth(build_py):
    """Puts a `.pth` file beside the packages: every interpreter of the environment imports `harness_compat`."""

    def run(self):
        """Build the packages, and write the file into the wheel's root (an editable wheel has nothing else in it)."""
        super().run()
        root = self.distribution.get_command_obj("install").install_purelib if self.editable_mode else self.build_lib
        (Path(root) / "harness_compat.pth").write_text("import harness_compat\n", encoding="ascii")


setup(
    name="mxnet-horovod-harness",
    version="0.1.0",
    description="Distributed MXNet/Gluon training with a scheduled learning rate",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    cmdclass={"build_py": BuildWithPth},
    package_dir={"": "."},  # so that an editable installation is a path, which costs an interpreter nothing to set up
    packages=find_packages(include=["harness", "harness.*", "harness_compat"]),
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
        "setuptools",  # MXNet and Horovod import distutils, which Python 3.12 no longer has
    ],
    extras_require={
        "cpu": ["mxnet", "horovod"],
        **{cuda: [f"mxnet-{cuda}", "horovod"] for cuda in CUDA},
        "mpich": ["mpich"],
        "benchmarks": ["torch"],
        "dev": ["pytest", "pytest-xdist", "ruff", "mypy", "types-PyYAML", "jsonschema", "tensorboard"],
    },
)
