"""Gradients on which a checker is easily wrong: right ones that look wrong, and wrong ones that look right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.crosscheck import check_custom_vjp, check_function, check_rule

pytestmark = pytest.mark.slow
QUICK = {"control": False, "repair": False}
RANDOM = {
    "bernoulli": lambda key, x: jax.random.bernoulli(key, 0.7, x.shape),
    "normal": lambda key, x: jax.random.normal(key, x.shape),
    "randint": lambda key, x: jax.random.randint(key, x.shape, 0, 5),
    "permutation": lambda key, x: jax.random.permutation(key, len(x))[:, None],
    "normal of each row": lambda key, x: jax.vmap(lambda key: jax.random.normal(key, (3,)))(
        jax.random.split(key, len(x))
    ),
}


def normal(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def sine(x):
    return jnp.sin(x), x


def cosine(x, dy):
    return (dy * jnp.cos(x),)


@pytest.mark.parametrize("factor", [1.0, 1.01])
@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_are_those_of_the_callers_types(name, factor):
    def forward(x, key):
        noise = RANDOM[name](key, x).astype(x.dtype)
        return x * noise, noise

    def backward(noise, dy):
        return dy * noise * factor, None

    x = normal(4, 3, dtype=np.float32)
    key = jax.random.PRNGKey(3) if name == "normal" else jax.random.key(3)
    report = check_rule(forward, backward, x, key, **QUICK)
    assert report.verdict == ("PASS" if factor == 1 else "FAIL"), report


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_random_numbers_inside_a_loop(factor):
    """float64 can't draw those of a loop's body as float32 does: the reference runs in float32."""

    def forward(x, keys):
        def step(carry, one):
            mask = jax.random.bernoulli(one[1], 0.5, one[0].shape)
            return carry + jnp.where(mask, one[0], 0).sum(), mask

        return jax.lax.scan(step, jnp.float32(0), (x, keys))

    def backward(mask, dy):
        return factor * jnp.where(mask, dy, 0).astype(jnp.float32), None

    report = check_rule(
        forward, backward, normal(4, 3, dtype=np.float32), jax.random.split(jax.random.key(0), 4), **QUICK
    )
    assert report.verdict == ("PASS" if factor == 1 else "FAIL"), report


def softplus_backward(x, dy):
    return (dy * jax.nn.sigmoid(x),)


@pytest.mark.parametrize(
    ("change", "verdict"), [(lambda x: 1.0, "INCONCLUSIVE"), (lambda x: jnp.where(x < 0, 1.1, 1.0), "FAIL")]
)
@pytest.mark.parametrize(
    "reference", [lambda x: jnp.log(1 + jnp.exp(x)), lambda x: -jnp.log(1 - jax.nn.sigmoid(x))], ids=["exp", "sigmoid"]
)
def test_where_the_reference_is_not_finite_the_rest_is_judged(reference, change, verdict):
    x = np.array([-3.0, 0.3, 5.0, 900.0])
    report = check_rule(
        lambda x: (jax.nn.softplus(x), x),
        lambda x, dy: (softplus_backward(x, dy)[0] * change(x),),
        x,
        reference=reference,
        **QUICK,
    )
    assert report.verdict == verdict, report
    assert verdict == "FAIL" or (report.reason, report.culprit) == (
        "the reference is inf at Y[3]: no gradient was compared there",
        "reference",
    )


@pytest.mark.parametrize(("at_zero", "verdict"), [(0.0, "PASS"), (1.0, "PASS"), (-1.0, "FAIL"), (2.0, "FAIL")])
def test_thousands_of_kinks(at_zero, verdict):
    """maximum's gradient at 0 is ½ by autodiff, and another at each of 6,000 zeros."""
    x = np.maximum(normal(300, 40), 0)
    report = check_rule(
        lambda x: (jnp.maximum(x, 0), x), lambda x, dy: (jnp.where(x == 0, at_zero * dy, dy * (x > 0)),), x, **QUICK
    )
    assert report.verdict == verdict, report


def test_kinks_that_are_too_many_to_look_at():
    """Sums of rows: not element by element, so that 512 of them are looked at, and the rest is not excused."""
    X = np.maximum(normal(60, 40), 0)
    report = check_rule(
        lambda X: (jnp.maximum(X, 0).sum(-1), X), lambda X, dy: (jnp.where(X > 0, dy[:, None], 0),), X, **QUICK
    )
    assert report.verdict == "INCONCLUSIVE", report
    assert "differ from autodiff, as on a kink, and were not looked at" in report.reason


def test_smooth_zeros_beside_a_kink():
    def backward(x, dy):
        return (jnp.where(x == 0, 0, dy * jnp.concatenate([x[:16] > 0, jnp.cos(x[16:])])),)

    x = normal(32)
    x[3] = x[20:28] = 0
    report = check_rule(lambda x: (jnp.concatenate([jnp.maximum(x[:16], 0), jnp.sin(x[16:])]), x), backward, x, **QUICK)
    assert report.verdict == "FAIL", report


@pytest.mark.parametrize(("at_zero", "verdict"), [(0, "PASS"), (0.6 - 0.6j, "PASS"), (1 + 1j, "FAIL"), (1.2, "FAIL")])
def test_the_subgradients_of_a_complex_modulus_are_a_disc(at_zero, verdict):
    z = normal(6) + 1j * normal(6, seed=1)
    z[2] = 0

    def backward(z, dy):
        return (dy * jnp.where(z == 0, at_zero, z.conj() / jnp.where(z == 0, 1, jnp.abs(z))),)

    report = check_rule(lambda z: (jnp.abs(z), z), backward, z, **QUICK)
    assert report.verdict == verdict, report


def scaled(which, by):
    """Outputs in bfloat16 and float32, of other sizes; the gradient of one is off by a factor."""

    def backward(x, dy):
        parts = [2 * dy[0].astype(x.dtype), 2e-6 * x * dy[1]]
        parts[which] = by * parts[which]
        return (sum(parts),)

    return (lambda x: (((2 * x).astype(jnp.bfloat16), 1e-6 * x * x), x)), backward


@pytest.mark.parametrize(("which", "by", "verdict"), [(0, 1.0, "PASS"), (1, 1.005, "FAIL"), (0, 1.1, "FAIL")])
def test_a_coarse_output_hides_nothing_in_a_fine_one(which, by, verdict):
    report = check_rule(*scaled(which, by), normal(4, 3, dtype=np.float32), **QUICK)
    assert report.verdict == verdict, report


@pytest.mark.parametrize("seed", range(4))
def test_an_output_in_bfloat16(seed):
    """Differences of it are those of a staircase."""
    x = normal(4, 5, seed=seed, dtype=np.float32)
    report = check_rule(
        lambda x: ((x * x).astype(jnp.bfloat16), x), lambda x, dy: (2 * x * dy.astype(x.dtype),), x, **QUICK
    )
    assert report.ok, report


@pytest.mark.parametrize(("dz", "verdict"), [(None, "PASS"), (0.0, "PASS"), (1e-12, "FAIL")])
def test_a_gradient_that_is_zero_on_purpose(dz, verdict):
    def backward(residuals, dy):
        x, y = residuals
        return dy * y, dy * x, None if dz is None else jnp.full(3, dz)

    report = check_rule(
        lambda x, y, z: (x * y, (x, y)), backward, normal(4, 5), normal(4, 5, seed=1), normal(3), **QUICK
    )
    assert report.verdict == verdict, report


def test_none_for_a_gradient_that_is_not_zero():
    report = check_rule(lambda x, z: (x * z, z), lambda z, dy: (dy * z, None), normal(4, 3), normal(4, 3), **QUICK)
    assert (report.verdict, report.reason) == ("FAIL", "z: None, which JAX takes for zero")


def test_arguments_that_index_one_anothers_rows():
    x, order = normal(6, 3), np.random.default_rng(1).permutation(6)
    report = check_rule(lambda x, p: (x[p], p), lambda p, dy: (dy[jnp.argsort(p)], None), x, order, **QUICK)
    assert report.ok, report


def step_by_step(change):
    """A backward pass in NumPy, which JAX can't trace."""

    def backward(x, dy):
        x = np.asarray(x)
        return (np.asarray(dy) * change(np.cos(x), x.shape),)

    return backward


def behind_a_callback(change):
    def backward(x, dy):
        like = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return (jax.pure_callback(lambda x, dy: np.asarray(dy) * change(np.cos(x), x.shape), like, x, dy),)

    return backward


@pytest.mark.parametrize("way", [step_by_step, behind_a_callback])
def test_numbers_kept_from_the_first_call(way):
    assert check_rule(sine, way(lambda cosine, shape: cosine), normal(4, 3), **QUICK).ok
    seen = {}
    report = check_rule(sine, way(lambda cosine, shape: seen.setdefault(shape, cosine)), normal(4, 3), **QUICK)
    assert report.verdict == "FAIL", report
    assert report.reason.startswith("no state kept between calls: at a second input, x is ")


def root(factor):
    @jax.custom_vjp
    def root(a):
        return jax.lax.while_loop(lambda x: jnp.max(jnp.abs(x * x - a)) > 1e-14, lambda x: (x + a / x) / 2, a + 1)

    root.defvjp(lambda a: (root(a),) * 2, lambda x, dy: (factor * dy / (2 * x),))
    return root


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (2.0, "FAIL")])
def test_a_reference_without_reverse_mode(factor, verdict):
    """An implicit derivative: differences are the reference that is left."""
    a = np.random.default_rng(0).uniform(1, 3, 5)
    report = check_custom_vjp(root(factor), None, a, **QUICK)
    assert report.verdict == verdict, report
    assert any("finite differences are the only reference" in note for note in report.notes)
    assert check_custom_vjp(root(factor), None, a, differences=False, **QUICK).verdict == "INVALID"


def cost(W, x):
    z = np.tanh(x @ W)
    z[0] *= 2  # in place, as only NumPy can
    return 0.5 * np.sum(z**2)


def of_cost(W, x):
    z = np.tanh(x @ W)
    return x.T @ (np.array([4, 1, 1, 1, 1])[:, None] * z * (1 - z**2))


@pytest.mark.parametrize("shape", [(4, 3), (20, 15)], ids=["every element", "some elements and directions"])
def test_a_function_outside_jax(shape):
    W, x = normal(*shape), 0.3 * normal(5, shape[0], seed=1)
    assert check_function(cost, of_cost, W, x, **QUICK).ok
    assert check_function(cost, lambda W, x: 1.001 * of_cost(W, x), W, x, **QUICK).verdict == "FAIL"


def test_one_wrong_element_of_a_function_outside_jax():
    def wrong(W, x):
        dW = of_cost(W, x)
        dW[7, 7] *= 1.5
        return dW

    report = check_function(cost, wrong, normal(20, 15), 0.3 * normal(5, 20, seed=1), **QUICK)
    assert report.verdict == "FAIL", report


@pytest.mark.parametrize(
    "output", [lambda x: (x * 2,), lambda x: {"a": x * 2, "b": x}], ids=["another structure", "another count"]
)
def test_a_forward_pass_of_another_output(output):
    f = jax.custom_vjp(lambda x: {"a": x * 2})
    f.defvjp(lambda x: (output(x), None), lambda _, dy: (2 * jax.tree.leaves(dy)[0],))
    report = check_custom_vjp(f, None, normal(3), **QUICK)
    assert report.verdict == "INVALID", report
    assert "forward pass must return" in report.reason


def test_control_flow_on_values():
    f = jax.custom_vjp(lambda x: jnp.sin(x) if x > 0 else jnp.cos(x))
    f.defvjp(lambda x: (f(x), x), lambda x, dy: (dy * jnp.where(x > 0, jnp.cos(x), -jnp.sin(x)),))
    assert check_custom_vjp(f, None, np.float64(0.4), **QUICK).ok


def raises(x):
    raise RuntimeError("no such device")


def leaves(x):
    raise SystemExit(3)


@pytest.mark.parametrize("reference", [raises, leaves])
def test_a_reference_that_raises_is_the_culprit(reference):
    report = check_rule(sine, cosine, normal(3), reference=reference, **QUICK)
    assert (report.verdict, report.culprit) == ("INVALID", "reference"), report


def test_empty_inputs_show_nothing():
    report = check_rule(sine, lambda x, dy: (5 * dy,), np.zeros((0, 3)), **QUICK)
    assert (report.verdict, report.reason) == ("INCONCLUSIVE", "the inputs are empty: nothing was compared")


def test_argnums():
    def backward(residuals, dy):
        return dy * residuals[1], 3 * dy

    forward, x = (lambda x, y: (x * y, (x, y))), normal(4, 3)
    assert check_rule(forward, backward, x, x + 1, argnums=0, **QUICK).ok
    assert check_rule(forward, backward, x, x + 1, argnums=(0, 1), **QUICK).verdict == "FAIL"
    assert check_rule(forward, backward, x, x + 1, argnums=2, **QUICK).verdict == "INVALID"
    forgotten = check_function(lambda x, y: jnp.sum(x * y), lambda x, y: (y, x), x, x + 1, **QUICK)
    assert (forgotten.verdict, "argnums=0" in forgotten.reason) == ("INVALID", True)


def test_an_unstable_reference_is_not_the_functions_conditioning():
    """1 − cos x in float32 leaves no digit; 2 sin²(x/2) leaves them all."""
    x = np.linspace(1e-4, 1e-3, 12, dtype=np.float32)
    reference = lambda x: 1 - jnp.cos(x)  # noqa: E731
    stable = lambda x: (2 * jnp.sin(x / 2) ** 2, x)  # noqa: E731
    assert check_rule(stable, lambda x, dy: (dy * jnp.sin(x),), x, reference=reference, **QUICK).ok
    twice = check_rule(stable, lambda x, dy: (2 * dy * jnp.sin(x),), x, reference=reference, **QUICK)
    assert twice.verdict == "FAIL", twice


@pytest.mark.parametrize(("axis", "verdict"), [(0, "PASS"), (1, "FAIL")])
def test_a_square_input_whose_axes_are_mixed_up(axis, verdict):
    """A mean over examples that divides by the features: as many, so that only another batch can tell."""
    report = check_rule(
        lambda X: ((X * X).mean(0), X), lambda X, dy: (2 * X * dy[None] / X.shape[axis],), normal(6, 6), **QUICK
    )
    assert report.verdict == verdict, report


def test_one_example_that_is_broadcast_to_a_batch():
    mask = np.tril(np.ones((4, 5)))
    assert check_rule(lambda x: (mask * x, None), lambda _, dy: (mask * dy,), normal(4, 5), **QUICK).ok


@pytest.mark.parametrize(("slope", "verdict"), [(0.0, "PASS"), (1.0, "PASS")])
def test_one_example_is_a_special_point_of_what_is_centered(slope, verdict):
    """x − mean(x) is zero in a batch of one, on the kink of the mean excess: any slope is right there."""

    def backward(c, dy):
        d = jnp.where(c == 0, slope, c > 0) * dy / c.size
        return (d - d.mean(),)

    def forward(x):
        c = x - x.mean()
        return jnp.maximum(c, 0).mean(), c

    report = check_rule(forward, backward, normal(6), **QUICK)
    assert report.verdict == verdict, report
