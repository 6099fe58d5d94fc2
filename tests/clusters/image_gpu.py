"""The GPU image as far as it can be built without a GPU: `python tests/clusters/image_gpu.py [OPTIONS of buildah bud]`.

NVIDIA's base images are replaced by Debian 12 with what the Dockerfile uses of them: nvcc and the stub of the driver
(Debian's, of CUDA 11.8), and CUDA 11.7's libraries, cuDNN and NCCL (NVIDIA's wheels). MXNet's CUDA build is imported,
Horovod is compiled for NCCL, and two ranks sum an array on the CPU. With `UBUNTU_MIRROR`, the address of an archive of
Ubuntu, it is Ubuntu 22.04 as below NVIDIA's images, and nvcc of CUDA 11.5. 40 GB of disk are wanted for a while.
"""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

from image import debian_like, look_inside, remove, workplace
from stage import check, require, run

IMAGE = "localhost/mxnet-horovod-harness:gpu"
BASE = "docker.io/nvidia/cuda:11.7.1-cudnn8-{}-ubuntu22.04"
WHEELS = {
    "cublas": "11.10.3.66",
    "cuda-nvrtc": "11.7.99",
    "cuda-runtime": "11.7.99",
    "cudnn": "8.5.0.96",
    "cufft": "10.9.0.58",
    "curand": "10.2.10.91",
    "cusolver": "11.4.0.1",
    "cusparse": "11.7.4.91",
    "nccl": "2.14.3",
    "nvtx": "11.7.91",
}
INSIDE = "/usr/lib/x86_64-linux-gnu"


def libraries(folder: Path) -> Path:
    """NVIDIA's libraries, and nccl.h, in one folder."""
    wheels = [f"nvidia-{name}-cu11=={version}" for name, version in WHEELS.items()]
    run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder / "wheels"), *wheels])
    for wheel in (folder / "wheels").iterdir():
        with zipfile.ZipFile(wheel) as archive:
            wanted = [name for name in archive.namelist() if ".so" in name or name.endswith("/nccl.h")]
            archive.extractall(folder / "unpacked", wanted)
        wheel.unlink()
    found = folder / "lib64"
    found.mkdir()
    for path in (folder / "unpacked").rglob("*"):
        if path.is_file():
            path.rename(found / path.name)
    return found


def main() -> None:
    require(buildah="buildah", debootstrap="debootstrap")
    with workplace() as (builder, folder):
        found = libraries(folder)
        root = base_system(folder / "root")
        run(["cp", "--archive", str(root), str(folder / "devel")])  # devices too, as what they are
        for base in (root, folder / "devel"):
            shutil.copytree(found, base / "usr/local/cuda/lib64")
            (base / "etc/ld.so.conf.d/000_cuda.conf").write_text("/usr/local/cuda/lib64\n")
            run(["chroot", str(base), "ldconfig"])
        builder.base(BASE.format("runtime"), root)
        add_compiler(folder / "devel")
        builder.base(BASE.format("devel"), folder / "devel")
        builder.build("--file", "Dockerfile.gpu", "--tag", IMAGE)
        builder.run("images", IMAGE)
        container = builder.container(IMAGE)
        look_inside(builder, container)
        mxnet = ".venv/lib/python3.11/site-packages/mxnet/libmxnet.so"
        missing = builder.inside(container, f"ldd {mxnet} | grep 'not found'").split()
        check("of the libraries of MXNet only the driver is missing", missing == ["libcuda.so.1", "=>", "not", "found"])
        said = builder.inside(container, "python launch/doctor.py --quick", expect=1)
        check("and without a driver the image is not healthy", "libcuda.so.1" in said)


def base_system(root: Path) -> Path:
    """Debian or Ubuntu, with all parts of its archive."""
    mirror = os.environ.get("UBUNTU_MIRROR")
    if mirror is None:
        debian_like(root, "bookworm")
        suites, parts = ["bookworm"], "main contrib non-free"
    else:
        debian_like(root, "jammy", mirror)
        suites, parts = ["jammy", "jammy-updates"], "main universe multiverse restricted"
    sources = root / "etc/apt/sources.list"
    _, address, *_ = sources.read_text().split()
    sources.write_text("".join(f"deb {address} {suite} {parts}\n" for suite in suites))
    return root


def add_compiler(root: Path) -> None:
    """What the devel image has besides: nvcc, the stub of the driver and NCCL's header; but no driver."""
    run(["chroot", str(root), "apt-get", "update"])
    words = ["apt-get", "install", "-y", "--no-install-recommends", "nvidia-cuda-toolkit"]
    run(["chroot", str(root), *words], timeout=1800, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    for pattern in (f"{INSIDE}/libcuda.so*", f"{INSIDE}/libcu*_static*.a", f"{INSIDE}/libnpp*.a", "usr/lib/jvm/*"):
        for path in root.glob(pattern.lstrip("/")):
            if path.name != "libcudart_static.a":
                remove(path)
    toolkit = root / "usr/local/cuda/lib64"
    (toolkit / "stubs").mkdir()
    shutil.copy(root / INSIDE.lstrip("/") / "stubs/libcuda.so", toolkit / "stubs")
    (root / INSIDE.lstrip("/") / "libnccl.so").symlink_to("/usr/local/cuda/lib64/libnccl.so.2")  # as in NVIDIA's image
    shutil.move(toolkit / "nccl.h", root / "usr/include/nccl.h")


if __name__ == "__main__":
    main()
