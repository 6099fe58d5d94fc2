# make train     set up and train the digits on two ranks        make check   ruff and mypy
# make setup     install everything into .venv (see install.sh)  make format  format the code
# make test      set up and run the tests, three at a time       make clean   remove .venv*, runs/, plans/
# make thorough  the tests, with 8 ranks, random kills and long loops (more than half an hour)
# make pythons   on Python 3.12 and 3.13 the digests of .venv; on 3.13 the tests of what computes or stores bits
# make clients   train models of GluonCV, GluonNLP, GluonTS and Sockeye (examples/clients), in .venv-clients
# make benchmarks  measure everything in docs/performance.md (more than an hour)
RUN := . .venv/bin/activate &&
# on two cores, because tests that start jobs wait for them
AT_A_TIME := --numprocesses 3 --dist worksteal
# processes of one job would each compile what they import
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup train compiled test thorough pythons clients check format format-check benchmarks clean

setup:
	@./install.sh

train: setup
	@$(RUN) $$(test -x .venv/bin/horovodrun && echo horovodrun || echo mpirun) -np 2 python launch/train.py --overwrite

# once, and not by each of the workers that begin at the same time
compiled: setup
	@$(RUN) python -m pytest --collect-only --quiet >/dev/null || true

test: setup
	@$(RUN) python -m pytest $(AT_A_TIME)

thorough: setup
	@$(RUN) HARNESS_THOROUGH=1 python -m pytest $(AT_A_TIME)

pythons: setup
	@$(RUN) python tests/pythons.py set-up
	@$(RUN) python tests/pythons.py test

clients:
	@examples/clients/install.sh
	@. .venv-clients/bin/activate && python -m pytest tests/clients --numprocesses 2 --dist loadscope

check: setup
	@$(RUN) ruff check
	@$(RUN) mypy

format: setup
	@$(RUN) ruff check --fix --quiet
	@$(RUN) ruff format

format-check: setup
	@$(RUN) ruff format --check

benchmarks: setup
	@$(RUN) pip install --quiet --constraint constraints.txt --editable '.[benchmarks]' --no-build-isolation
	@$(RUN) python benchmarks/everything.py

clean:
	rm -rf .venv .venv-clients .pythons runs plans
