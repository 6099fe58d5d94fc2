import pytest

from harness.config import load_config

_LEAST = {"train": "{epochs: 2}", "network": "{name: mlp}", "lr": "{schedule: 0.1}"}


@pytest.fixture
def write_config(tmp_path):
    """Write the smallest configuration with some sections replaced (by YAML text) or, with text, exactly that."""

    def write(text=None, **sections):
        if text is None:
            text = "".join(f"{key}: {value}\n" for key, value in {**_LEAST, **sections}.items() if value is not None)
        path = tmp_path / "c.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def load(write_config):
    """Load such a configuration, with overrides."""

    def read(*overrides, **sections):
        return load_config(write_config(**sections), overrides)

    return read


@pytest.fixture
def refusal(write_config):
    """The lines that refuse such a configuration, without the file's name, which must begin each."""

    def lines(*overrides, **sections):
        from harness.errors import ConfigError

        path = write_config(**sections)
        with pytest.raises(ConfigError) as caught:
            load_config(path, overrides)
        found = str(caught.value).splitlines()
        assert all(line.startswith(f"{path}:") for line in found), found
        return [line.removeprefix(f"{path}:").strip() for line in found]

    return lines
