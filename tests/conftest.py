"""Every test runs in float64, with rank promotion and warnings as errors (the latter in pyproject.toml)."""

from pathlib import Path

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data that some machines have beside the repository; it is not part of the project."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs MNIST and Nielsen's figures in {folder.name}/ beside the repository")
    return folder
