"""What the package holds and needs, by purpose; the versions of what it needs stand in constraints.txt alone."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
CUDA = ["cu102", "cu110", "cu112", "cu113", "cu114", "cu115", "cu116", "cu117"]
COMMANDS = ["train", "find_lr", "plan", "report", "compare", "checkpoint", "bridge", "data", "doctor", "supervise"]


class BuildEverything(build_py):
    """Puts what lies elsewhere in a checkout beside the modules: configurations, and a `.pth` file.

    Every interpreter of the environment imports `harness_compat` because of that file.
    """

    def run(self):
        """Build the packages, and put the rest beside them (in an editable wheel there is only the `.pth` file)."""
        super().run()
        root = self.distribution.get_command_obj("install").install_purelib if self.editable_mode else self.build_lib
        Path(root, "harness_compat.pth").write_text("import harness_compat\n", encoding="ascii")
        if not self.editable_mode:
            folder = Path(root, "harness", "configs")
            folder.mkdir(exist_ok=True)
            for path in (ROOT / "configs").iterdir():
                self.copy_file(str(path), str(folder))


setup(
    name="mxnet-horovod-harness",
    version=re.search(r'^__version__ = "(.+)"$', (ROOT / "harness/__init__.py").read_text(), re.MULTILINE)[1],
    description="Distributed MXNet/Gluon training with a scheduled learning rate",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    keywords=["mxnet", "gluon", "horovod", "mpi", "deep learning", "distributed training", "learning rate schedule"],
    classifiers=[
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13, 14)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    package_dir={"": "."},  # so that an editable installation is a path, which costs an interpreter nothing to set up
    packages=find_packages(include=["harness", "harness.*", "harness_compat"]),
    package_data={"harness.data": ["files/*"], "harness.report": ["templates/*"], "harness": ["py.typed"]},
    cmdclass={"build_py": BuildEverything},
    entry_points={
        "console_scripts": [
            *(f"harness-{name.replace('_', '-')} = harness.cli.scripts:{name}" for name in COMMANDS),
            "harness-build-horovod = harness.build_horovod:main",
        ]
    },
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
        # from Python 3.13 on MXNet's metadata forbids the NumPy that there is: its other needs, and pip --no-deps mxnet
        "cpu": ['mxnet; python_version < "3.13"', "graphviz", "requests", "mpich"],
        **{cuda: [f"mxnet-{cuda}"] for cuda in CUDA},
        "mpich": ["mpich"],
        "pictures": ["simplejpeg", "opencv-python-headless"],
        "torch": ["torch"],  # for harness-bridge alone
        "tracking": ["mlflow-skinny", "wandb"],  # harness.hooks.mlflow and .wandb
        "benchmarks": ["torch"],
        "dev": ["pytest", "pytest-xdist", "ruff", "mypy", "types-PyYAML", "jsonschema", "tensorboard"],
    },
)
