# make train   set up and train the digits on two ranks        make test     set up and run every test
# make setup   install everything into .venv (see install.sh)  make check    ruff and mypy
# make format  format the code                                 make clean    remove .venv, runs/ and plans/
# make benchmarks  measure everything in docs/performance.md (more than an hour)
RUN := . .venv/bin/activate &&

.PHONY: setup train test check format format-check benchmarks clean

setup:
	@./install.sh

train: setup
	@$(RUN) horovodrun -np 2 python launch/train.py --overwrite

test: setup
	@$(RUN) python -m pytest

check: setup
	@$(RUN) ruff check
	@$(RUN) mypy

format: setup
	@$(RUN) ruff check --fix --quiet
	@$(RUN) ruff format

format-check: setup
	@$(RUN) ruff format --check

benchmarks: setup
	@$(RUN) pip install --quiet --constraint constraints.txt --editable '.[cpu,benchmarks]' --no-build-isolation
	@$(RUN) python benchmarks/everything.py

clean:
	rm -rf .venv runs plans
