"""What the tests of the deployment share: the environment of the image, made once."""

from pathlib import Path

import pytest

from tests.deploy import dockerfile


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The virtual environment that the Dockerfile makes."""
    return dockerfile.build(tmp_path_factory.mktemp("image"))
