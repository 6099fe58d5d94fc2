# CPU image: the same set-up as on any machine. docker build -t harness . && docker run --rm harness
FROM debian:bookworm-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-dev python3-venv g++ make ca-certificates \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home harness
USER harness
WORKDIR /home/harness/project

# set-up first and alone, so that a change of the code does not build Horovod again
COPY --chown=harness install.sh constraints.txt setup.py pyproject.toml README.md ./
COPY --chown=harness harness ./harness
RUN ./install.sh && rm -rf ~/.cache

COPY --chown=harness . .
ENV PATH=/home/harness/project/.venv/bin:$PATH
CMD ["horovodrun", "-np", "2", "python", "launch/train.py", "--overwrite"]
