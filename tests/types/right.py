"""Ordinary programs, of which a type checker has nothing to say."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import handgrad as hg

model = hg.chain(hg.linear(8, bias=False), hg.tanh(), encoder=hg.layer_norm(), head=hg.linear(3))
loss = hg.softmax_cross_entropy(label_smoothing=0.1)
x, labels, key = jnp.ones((4, 2)), np.zeros(4, int), jax.random.key(0)
params = model.init(key, x)

value, grads = hg.value_and_grad(model, loss)(params, x, labels)
(value, logits), (dparams, dx) = hg.value_and_grad(model, loss, argnums=(0, 1), has_aux=True)(
    params, x, labels, key=key
)
grads = hg.grad(model, loss)(params, x, labels, weights=np.ones(4))
losses, factors = hg.value_and_factors(model, loss)(params, x, labels, key)
norms = hg.sq_norms(factors, unit="token", method="gram")
clip = hg.clipped_grad(model, loss, l2_clip_norm=1.0, style="layer", return_norms=True)
clipped, aux = clip(params, x, labels, is_padding_example=np.zeros(4, bool))
curvature = hg.kfac_factors(hg.sampled_factors(model, loss)(params, x, labels, key), "reduce")
product = hg.ggn_vector_product(model, loss, params, x, labels)(params)
attended = hg.rules.attention(jnp.ones((1, 2, 3, 4)), jnp.ones((1, 2, 3, 4)), jnp.ones((1, 2, 3, 4)), causal=True)
y = hg.custom_vjp(model)(params, x)
hg.check_rule(hg.rules.tanh, x, reference=jnp.tanh).raise_if_failed()
hg.check_rule(hg.rules.tanh, x, dtype="float32", draws=1, transforms=("jit", "vmap"), control=None, rtol=1e-3)
hg.check_model(model, loss, params, x, labels, dtype=jnp.bfloat16, repair=False, nondeterminism_tolerance=0.0)

optimizer = optax.adam(1e-3)
state = hg.training.init_state(params, optimizer, key)
for epoch, metrics in hg.training.fit(model, loss, optimizer, state, (x, labels), batch_size=2, epochs=1):
    print(epoch.step, metrics["loss"])


def doubled_forward(X: jax.Array, *, scale: float = 2.0) -> tuple[jax.Array, tuple[()]]:
    return scale * X, ()


def doubled_backward(residuals: tuple[()], dY: jax.Array, *, scale: float = 2.0) -> tuple[jax.Array]:
    return (scale * dY,)


doubled = hg.Rule(doubled_forward, doubled_backward)
layer = hg.from_rule(doubled, scale=3.0)
tripled: jax.Array = doubled(x, scale=3.0)
