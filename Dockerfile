# CPU image: docker build -t mxnet-horovod-harness . && docker run --rm mxnet-horovod-harness
FROM debian:trixie-slim AS build

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv g++ make

# copy only what the set-up reads, so that changes to other code reinstall nothing
WORKDIR /opt/harness
COPY install.sh constraints.txt setup.py pyproject.toml ./
COPY harness/*.py harness/
COPY harness/comm harness/comm
COPY harness_compat harness_compat
RUN touch README.md \
    && WITH_DEV=0 ./install.sh \
    && .venv/bin/pip uninstall --quiet --yes cmake \
    && rm -rf .venv/include .venv/share .venv/lib/python3*/site-packages/mxnet/include \
    && find .venv -depth -type d -name tests -exec rm -r {} + \
    && { .venv/bin/python -m compileall -qq .venv/lib || true; }


FROM debian:trixie-slim

# the MPI Operator's workers need sshd and procps; host keys belong to the job, never to the image
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 libgomp1 libquadmath0 openssh-server procps \
    && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* \
    && useradd --uid 1000 --create-home harness

WORKDIR /opt/harness
COPY --from=build /opt/harness/.venv .venv
COPY . .
RUN cp launch/kubernetes/ssh_config /etc/ssh/ssh_config.d/harness.conf \
    && .venv/bin/python -m compileall -q harness launch \
    && install -d -o harness -g harness runs plans

ENV PATH=/opt/harness/.venv/bin:$PATH
USER 1000:1000
HEALTHCHECK --interval=5m --timeout=1m CMD ["python", "launch/doctor.py", "--quick"]
CMD ["horovodrun", "-np", "2", "python", "launch/train.py", "--overwrite"]
