"""Programs with one mistake a line: a type checker marks each, and says nothing of the lines that have no comment."""

import jax
import jax.numpy as jnp
import optax

import handgrad as hg

model, loss = hg.mlp((2, 3), hg.relu()), hg.l2_loss()
x, y, key = jnp.ones((4, 2)), jnp.ones((4, 3)), jax.random.key(0)
params = model.init(key, x)
optimizer = optax.sgd(0.1)
state = hg.training.init_state(params, optimizer, key)

# The model level
hg.value_and_grad(model, loss)(params, x)  # wrong: no target
hg.grad(model, loss)(params, x)  # wrong: no target
hg.objective(model, loss)(params)  # wrong: no x
hg.value_and_factors(model, loss)(params, x)  # wrong: no target
hg.value_and_grad(loss, model)  # wrong: model and loss swapped
hg.value_and_factors(model, hg.l2_loss)  # wrong: no parentheses
hg.objective(hg.relu, loss)  # wrong: no parentheses
hg.value_and_grad(model, loss, argnum=1)  # wrong: argnums
hg.value_and_grad(model, loss)(params, x, y, weight=jnp.ones(4))  # wrong: weights
hg.value_and_grad(model, loss)(params, x, y, [1.0, 2.0])  # wrong: a list of weights
hg.custom_vjp(model)(params)  # wrong: no x
hg.custom_vjp(loss)  # wrong: a loss is no layer

# Layers and losses
hg.linear(3, bais=False)  # wrong: bias
hg.linear("3")  # wrong: a number
hg.lstm(3, truncated=4)  # wrong: truncate
hg.softmax_cross_entropy(label_smooting=0.1)  # wrong: label_smoothing
hg.chain(hg.linear(3), hg.relu)  # wrong: no parentheses
hg.repeat(hg.linear(3))  # wrong: how often
hg.mlp((2, 3), "relu")  # wrong: a layer
hg.mlp((2, 3), hg.relu(), biases=False)  # wrong: bias
hg.models.gpt2(hg.models.Gpt2Config(head=2))  # wrong: heads

# Rules
hg.rules.attention(x, x, x, casual=True)  # wrong: causal
hg.rules.attention(x, x)  # wrong: no values
hg.rules.tanh.forwards(x)  # wrong: forward
hg.rules.tahn(x)  # wrong: tanh
hg.check_rule(hg.rules.tanh, x, reference=x)  # wrong: a function
hg.Rule(lambda X: (X, X))  # wrong: no backward pass

# Checks
hg.check_rule(hg.rules.tanh, x, drawn=3)  # wrong: draws
hg.check_rule(hg.rules.tanh, x, rtol="1e-3")  # wrong: a number
hg.check_rule(hg.rules.tanh, x, transforms=("pmap",))  # wrong: not one of the transforms
hg.check_layer(hg.linear(3), x, contract=False)  # wrong: contracts
hg.check_model(model, loss, params, x, y, differences="no")  # wrong: False

# Folds
hg.clipped_grad(model, loss)  # wrong: no bound
hg.clipped_grad(model, loss, l2_clip_norm=1.0, style="layers")  # wrong: layer
hg.clipped_grad(model, loss, l2_clip_norm=1.0)(params, x)  # wrong: no target
hg.sq_norms((), units="token")  # wrong: unit
hg.sq_norms((), method="fast")  # wrong: gram or direct
hg.kfac_factors((), "expanded")  # wrong: expand
hg.sampled_factors(model, loss)(params, x, y)  # wrong: no key for the draw
hg.ggn_vector_product(model, loss, params, x)  # wrong: no target
hg.ggn_diagonal(loss, model, params, x, y)  # wrong: model and loss swapped

# Training
hg.training.fit(model, loss, optimizer, state, (x, y), batch=2, epochs=1)  # wrong: batch_size
hg.training.fit(loss, model, optimizer, state, (x, y), batch_size=2, epochs=1)  # wrong: swapped
hg.training.train_step(loss, model, optimizer)  # wrong: model and loss swapped
trained = hg.trainer  # wrong: training
