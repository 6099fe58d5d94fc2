"""These tests need the libraries of `.venv-clients`, where `make clients` runs them."""

from importlib.util import find_spec

NEEDED = ("gluoncv", "gluonnlp", "gluonts", "sockeye")
collect_ignore_glob = ["token_mean.py"] if all(map(find_spec, NEEDED)) else ["*.py"]
