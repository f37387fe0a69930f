"""Every test runs in float64, with rank promotion and warnings as errors (the latter in pyproject.toml)."""

import gc
import os
import platform
import signal
from pathlib import Path

import jax
import pytest

os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {os.environ.get('XLA_FLAGS', '')}"
if jax.__version_info__ < (0, 11):
    # XLA's older code generator, and LLVM without optimizations, in one part instead of one for each thread: compiled
    # in less than a third of the time, which is what the suite spends its time on. Of 250 random networks the gradients
    # of two come out NaN by jax.grad without optimizations; a test that meets that, or is about rounding, takes
    # helpers.optimized_jit. The newest JAX runs the suite as users do, with the newer generator and all optimizations.
    quick = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0"
    quick = f"{quick} --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{quick} {os.environ['XLA_FLAGS']}"
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = Path(__file__).resolve().parents[1]
# Compiling takes more than half of the suite's time: programs are kept for the next run, this machine's apart.
jax.config.update("jax_compilation_cache_dir", str(REPOSITORY / ".pytest_cache" / f"jax-{platform.node()}"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
MAPS = Path("/proc/self/maps")


def pytest_configure(config):
    """Another process may be writing the program that this one wants to read: it compiles it, then."""
    config.addinivalue_line("filterwarnings", "ignore:Error (reading|writing) persistent compilation cache")


def pytest_collection_finish():
    """What was imported and collected stays: the collector of garbage, a tenth of the time otherwise, leaves it out."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True)
def few_programs_in_memory():
    """Each compiled program stays in memory, in a map of its own: 10,000 of them are two gigabytes, and Linux ends a
    process that has 65,530."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 10_000:
        jax.clear_caches()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data that some machines have beside the repository; it is not part of the project."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs MNIST and Nielsen's figures in {folder.name}/ beside the repository")
    return folder


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """test_<stem>_in_torch.py needs a third party, PyTorch."""
    for item in items:
        if item.path.stem.endswith("_in_torch"):
            item.add_marker(pytest.mark.third_party)


@pytest.fixture
def in_foreground():
    """A shell starts what runs in the background with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
