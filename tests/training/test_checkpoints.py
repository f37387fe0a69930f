"""Checkpoints: bit for bit, whole or absent, and never another model's."""

import os
import resource
import shutil
import sys
import warnings
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec as P

from handgrad import InputError
from handgrad.training.checkpoints import Checkpoints
from handgrad.training.position import Position
from handgrad.training.state import TrainState, init_state

POSITION = Position(epoch=3, batch=7, loss_sum=0.1 + 0.2, weight_sum=64.0, skipped=1, best=1 / 3, stale=2)
Weights = namedtuple("Weights", ["W", "b"])


def made(step=0, **params):
    """A state with whatever a state can have: no parameters, None, an empty array, several dtypes, a dot in a name."""
    W = np.random.default_rng(step).standard_normal((40, 30))
    params = {
        "layers": ((), Weights(jnp.asarray(W, jnp.float32), None)),
        "half": jnp.asarray(W[0], jnp.bfloat16),
        "a.b": np.arange(3.0),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 3)),
        **params,
    }
    return TrainState(params, (), jnp.int32(step), jax.random.key(step, impl="rbg"))


def same(one, two):
    """Whether two states have the same structure, types and bits."""
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert (a.dtype, type(a)) == (b.dtype, type(b))
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    return True


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_everything_comes_back(tmp_path):
    state = made(5)
    with Checkpoints(tmp_path / "new") as checkpoints:
        assert checkpoints.restore(state) is None
        checkpoints.save(state, POSITION, {"loss": float("nan")})
    with Checkpoints(tmp_path / "new") as checkpoints:
        restored, position = checkpoints.restore(made(0))
    assert same(restored, state)
    assert position == POSITION
    like, adam = (init_state(made(step).params, optax.adam(0.1), jax.random.key(step)) for step in (0, 1))
    with Checkpoints(tmp_path / "adam") as checkpoints:
        checkpoints.save(adam, Position())
        assert same(checkpoints.restore(like)[0], adam)


def test_what_is_saved_may_be_donated(tmp_path):
    """The arrays are overwritten in place while they are being saved."""
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    state = TrainState(add(jnp.zeros(1_000_000)), (), jnp.int32(1))
    address = state.params.unsafe_buffer_pointer()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, Position())
        later = state._replace(params=add(add(state.params)))
        restored, _ = checkpoints.restore(later)
    assert state.params.is_deleted() or address
    assert np.all(restored.params == 1)
    assert np.all(add(restored.params) == 2)


def test_the_latest_and_the_best_are_kept(tmp_path):
    losses = {0: 9.0, 1: None, 2: 1.0, 3: 4.0, 4: None, 5: float("nan"), 6: 5.0}
    best = []
    with Checkpoints(tmp_path, every_steps=3, keep=2, best="loss") as checkpoints:
        assert checkpoints.best_step is None
        for step, loss in losses.items():
            metrics = None if loss is None else {"loss": loss, "other": 0.0}
            best.append(checkpoints.due(step, metrics))
            checkpoints.save(made(step), Position(epoch=step), metrics)
        assert best == [True, False, True, False, False, False, False]
        assert not checkpoints.due(8)
        assert checkpoints.due(9)
        assert (checkpoints.steps, checkpoints.best_step) == ((2, 5, 6), 2)
        checkpoints.save(made(6), Position(epoch=100))  # it has one: nothing is written
        with pytest.raises(InputError, match=r"must hold earlier steps than 4, got 6: restore it$"):
            checkpoints.save(made(4), Position())
    with Checkpoints(tmp_path, keep=2, best="loss") as checkpoints:
        assert [checkpoints.restore(made(), best=which)[1].epoch for which in (False, True)] == [6, 2]
        assert not checkpoints.due(7, {"loss": 2.0})
        assert checkpoints.due(7, {"loss": 0.5})
        with pytest.raises(InputError, match=r"best must be one of the metrics accuracy, got 'loss'"):
            checkpoints.save(made(7), Position(), {"accuracy": 1.0})
    with Checkpoints(tmp_path / "high", every_seconds=1e-9, best="accuracy", higher_is_better=True) as checkpoints:
        for step, accuracy in enumerate((0.1, 0.9, 0.5)):
            checkpoints.save(made(step), Position(), {"accuracy": accuracy})
        assert checkpoints.best_step == 1
        assert checkpoints.due(7)


def test_each_array_takes_its_own_sharding(tmp_path):
    """Saved on four devices, restored on two, and on one."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    rows, columns = NamedSharding(mesh, P("data")), NamedSharding(mesh, P(None, "model"))
    W = jnp.arange(32.0).reshape(8, 4)
    state = TrainState(
        {"W": jax.device_put(W, rows)}, (), jnp.int32(1), jax.device_put(jax.random.key(1), NamedSharding(mesh, P()))
    )
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, Position())
        for sharding in (columns, rows):
            restored, _ = checkpoints.restore(state._replace(params={"W": jax.device_put(W, sharding)}))
            assert restored.params["W"].sharding == sharding
            assert restored.key.sharding == state.key.sharding
            assert same(restored, state)
        shape = jax.ShapeDtypeStruct(W.shape, W.dtype, sharding=columns)
        assert checkpoints.restore(state._replace(params={"W": shape}))[0].params["W"].sharding == columns
        alone, _ = checkpoints.restore(state._replace(params={"W": W}))
        assert not alone.params["W"].committed


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (made()._replace(key=None), r"its key is key<rbg> \(\), the state's missing"),
        (made()._replace(key=jax.random.key(0)), r"its key is key<rbg> \(\), the state's key<fry> \(\)"),
        (made(half=jnp.zeros(30)), r"its params.half is bfloat16 \(30,\), the state's float64 \(30,\)"),
        (made(mask=np.zeros(3, bool)), r"its params.mask is bool \(2,\), the state's bool \(3,\)"),
        (made(more=np.zeros(2)), r"its params.more is missing, the state's float64 \(2,\)"),
    ],
)
def test_another_models_is_refused(other, difference, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(made(1), Position())
        checkpoints.wait()
        before = files(tmp_path)
        with pytest.raises(InputError, match=rf"restore: .*/1 is of another model or optimizer: {difference}$"):
            checkpoints.restore(other)
        assert files(tmp_path) == before


def delete(path):
    path.unlink()


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def damaged(folder, pattern, how):
    """Damage the largest of the files."""
    how(max((path for path in folder.glob(pattern) if path.is_file()), key=lambda path: path.stat().st_size))


@pytest.mark.parametrize(
    ("pattern", "how"),
    [
        ("2/arrays/ocdbt.process_0/d/*", truncate),
        ("2/arrays/ocdbt.process_0/d/*", flip),
        ("2/arrays/manifest.ocdbt", delete),
        ("2/about/metadata", truncate),
        ("2/about/metadata", flip),
        ("2/about/metadata", delete),
    ],
    ids=lambda case: case if isinstance(case, str) else case.__name__,
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_one_is_passed_over(pattern, how, tmp_path):
    """The one before it is restored, none is lost, and its step can be saved again."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(made(1), POSITION)
        checkpoints.save(made(2), Position())
    damaged(tmp_path, pattern, how)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.warns(UserWarning, match=r"/2 is damaged \(.*\): renamed to 2.damaged-\d+, going on from 1$"):
            restored, position = checkpoints.restore(made())
        assert same(restored, made(1))
        assert position == POSITION
        assert checkpoints.steps == (1,)
        checkpoints.save(made(2), Position(epoch=9))
        assert checkpoints.restore(made())[1].epoch == 9
    assert len(list(tmp_path.glob("2.damaged-*"))) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_whatever_is_damaged(tmp_path):
    """Each file of a checkpoint deleted, cut and changed: either all comes back, or the one before."""
    with Checkpoints(tmp_path / "whole", best="loss") as checkpoints:
        for step in (1, 2):
            checkpoints.save(made(step), Position(epoch=step), {"loss": 1.0})
    seen = set()
    for name, data in files(tmp_path / "whole" / "2").items():
        for how in (delete, truncate, flip) if data else (delete,):
            shutil.copytree(tmp_path / "whole", folder := tmp_path / "one")
            how(folder / "2" / name)
            with warnings.catch_warnings(), Checkpoints(folder, best="loss") as checkpoints:
                warnings.simplefilter("ignore")
                restored, position = checkpoints.restore(made())
                checkpoints.save(made(3), Position())
            assert same(restored, made(position.epoch))
            seen.add(position.epoch)
            shutil.rmtree(folder)
    assert seen == {1, 2}


def test_none_is_whole(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(made(1), Position())
    damaged(tmp_path, "1/about/metadata", truncate)
    before = files(tmp_path)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(InputError, match="is whole; 1 is damaged"):
        checkpoints.restore(made())
    assert files(tmp_path) == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # tensorstore's, of other arrays
def test_a_full_disk(tmp_path, monkeypatch, capfd):
    """One sentence, and what was saved is still there."""
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(made(1), POSITION)
        checkpoints.wait()
        usage = shutil.disk_usage(tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
            with pytest.raises(InputError, match=r"can't be written \([\d,]+ bytes are needed, 100 are free\); its"):
                checkpoints.save(made(2), Position())
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # no file may be longer
        try:
            checkpoints.save(made(3), Position())
            with pytest.raises(InputError, match=r"can't be written \(.*\); its checkpoints until now remain"):
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert checkpoints.steps == (1,)
        assert same(checkpoints.restore(made())[0], made(1))
        checkpoints.save(made(4), Position())
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(made())[0].step == 4
    assert "orbax" not in capfd.readouterr().err


def test_bad_arguments(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for options, sentence in (
        ({"folder": tmp_path / "file"}, "must be one that can be written"),
        ({"keep": 0}, "Checkpoints: keep must be a positive integer, got 0"),
        ({"every_seconds": 0}, "Checkpoints: every_seconds must be a positive number, got 0"),
        ({"every_steps": 1.5}, "Checkpoints: every_steps must be a positive integer, got 1.5"),
    ):
        with pytest.raises(InputError, match=sentence):
            Checkpoints(**{"folder": tmp_path / "new", **options})
    with Checkpoints(tmp_path / "new") as checkpoints, pytest.raises(InputError, match="best=True needs Checkpoints"):
        checkpoints.restore(made(), best=True)
    with (
        Checkpoints(tmp_path / "new") as checkpoints,
        pytest.raises(InputError, match=r"like must be a TrainState, .* got dict"),
    ):
        checkpoints.restore({})
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(InputError, match=r"needs orbax-checkpoint: .*pip install .*\[checkpoints\]'"):
        Checkpoints(tmp_path / "other")
    assert not (tmp_path / "other").exists()
