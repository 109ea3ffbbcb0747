"""experiments.models: outputs against plain numpy, published sizes, and the stacked gradient over nodes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import assert_refused
from scipy.special import expit

import adozoo
from experiments import models
from experiments.models import _layers, vision
from experiments.models.norms import EPSILON, GROUP, EvoNorm, GroupNorm

KEY = jax.random.key(0)


def built(model, seed=0):
    """Params and stats in float64, drawn anew so that no scale is 1 and no bias 0."""
    rng = np.random.default_rng(seed)
    params, stats = jax.eval_shape(model.init, KEY)
    params = jax.tree.map(lambda leaf: 0.3 * rng.normal(size=leaf.shape), params)
    return params, jax.tree.map(lambda leaf: rng.uniform(1, 2, leaf.shape), stats)


def outputs_of(model, params, inputs):
    return jax.jit(lambda params, inputs: model.apply(params, {}, inputs, False)[0])(params, inputs)


def relu(x):
    return np.maximum(x, 0)


def convolved(x, layer, stride=1):
    """A convolution pixel by pixel, padded by (w - 1) / 2."""
    kernel = np.asarray(layer["kernel"])
    half = kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    size = [(length - 1) // stride + 1 for length in x.shape[1:3]]
    out = np.zeros((len(x), *size, kernel.shape[-1]))
    for i in range(size[0]):
        for j in range(size[1]):
            window = padded[:, i * stride : i * stride + len(kernel), j * stride : j * stride + len(kernel)]
            out[:, i, j] = np.tensordot(window, kernel, 3)
    return out + np.asarray(layer.get("bias", 0.0))


def pooled(x):
    b, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))


def grouped(x, count):
    """Mean and variance of each sample's groups of channels, broadcast to x, group by group."""
    mean, var = np.empty_like(x), np.empty_like(x)
    for channels in np.array_split(np.arange(x.shape[-1]), count):
        part = x[..., channels]
        mean[..., channels] = part.mean((1, 2, 3))[:, None, None, None]
        var[..., channels] = part.var((1, 2, 3))[:, None, None, None]
    return mean, var


def normalised(x, layer, kind, stats=None, activate=True):
    if kind == "evo":
        out = x / np.sqrt(grouped(x, max(1, x.shape[-1] // GROUP))[1] + EPSILON)
        out = out * expit(np.asarray(layer["gate"]) * x) if activate else out
        return out * layer["scale"] + layer["bias"]
    layer = layer["norm"]
    if kind == "group":
        mean, var = grouped(x, max(1, x.shape[-1] // GROUP))
    elif stats is None:
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    else:
        mean, var = np.asarray(stats["norm"]["mean"]), np.asarray(stats["norm"]["var"])
    out = (x - mean) / np.sqrt(var + EPSILON) * layer["scale"] + layer["bias"]
    return relu(out) if activate else out


def test_cnn_and_vgg_are_what_their_formulas_say():
    rng = np.random.default_rng(0)
    model = models.cnn((9, 8, 2), 3, (4, 5))
    params, _ = built(model)
    x = rng.normal(size=(3, 9, 8, 2))
    hidden = relu(pooled(convolved(x, params["convolution0"])))
    hidden = relu(pooled(convolved(hidden, params["convolution1"])))
    expected = hidden.reshape(3, -1) @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(outputs_of(model, params, x), expected, rtol=1e-11, atol=1e-12)

    model = models.cnn((9, 8, 2), 3, (GROUP,), "group")
    params, _ = built(model)
    hidden = pooled(normalised(convolved(x, params["convolution0"]), params["norm0"], "group"))
    expected = hidden.reshape(3, -1) @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(outputs_of(model, params, x), expected, rtol=1e-11, atol=1e-12)

    model = models.vgg11((8, 8, 1), 3, 1 / 16)
    params, _ = built(model)
    hidden = x = rng.normal(size=(2, 8, 8, 1))
    for i, halve in enumerate([True, True, False, True, False, True, False, True]):
        hidden = convolved(hidden, params[f"convolution{i}"])
        hidden = relu(pooled(hidden) if halve and hidden.shape[1] > 1 else hidden)
    expected = hidden.reshape(2, -1) @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(outputs_of(model, params, x), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("norm", ["batch", "group", "evo"])
def test_cnn_is_normalised_before_it_is_pooled(norm):
    x = np.random.default_rng(0).normal(size=(3, 6, 7, 2))
    model = models.cnn((6, 7, 2), 3, (GROUP, 2 * GROUP), norm)
    params, stats = built(model)
    hidden = x
    for i in range(2):
        layer = params[f"norm{i}"]
        hidden = convolved(hidden, params[f"convolution{i}"])
        hidden = pooled(normalised(hidden, layer, norm, stats.get(f"norm{i}")))
    expected = hidden.reshape(3, -1) @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(model.apply(params, stats, x, False)[0], expected, rtol=1e-11, atol=1e-12)
    assert "bias" not in params["convolution0"]


def test_dense_models_are_what_their_formulas_say():
    x = np.random.default_rng(0).normal(size=(5, 2, 3))
    params, _ = built(models.logistic(6, 4))
    flat, layer = x.reshape(5, 6), params["linear0"]
    expected = flat @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(models.logistic(6, 4).apply(params, {}, x, True)[0], expected, rtol=1e-12)
    model = models.mlp(6, 4, (7, 5))
    params, _ = built(model)
    for i in range(3):
        flat = relu(flat) if i else flat
        flat = flat @ params[f"linear{i}"]["kernel"] + np.asarray(params[f"linear{i}"]["bias"])
    np.testing.assert_allclose(model.apply(params, {}, x, True)[0], flat, rtol=1e-12)


def residual(norm, projected, stages=(GROUP, 2 * GROUP)):
    """A ResNet of two stages of one block: all that the published ones are made of, quick to compile."""
    return vision._resnet("resnet", "resnet", (6, 6, 2), 3, norm, stages, 1, projected, "auto")


@pytest.mark.parametrize(("norm", "projected"), [("batch", True), ("group", False), ("evo", True)])
def test_residual_networks_are_what_their_formula_says(norm, projected):
    """In training and, for batch normalisation, in evaluation as well, where gathered statistics count."""
    model = residual(norm, projected)
    params, stats = built(model)
    x = np.random.default_rng(1).normal(size=(3, 6, 6, 2))

    def forward(stats):
        def statistics(*path):
            tree = stats
            for name in path:
                tree = tree and tree[name]
            return tree

        hidden = normalised(convolved(x, params["stem"]), params["stem_norm"], norm, statistics("stem_norm"))
        for name, stride in (("stage0_block0", 1), ("stage1_block0", 2)):
            block = params[name]
            inner = convolved(hidden, block["convolution0"], stride)
            inner = normalised(inner, block["norm0"], norm, statistics(name, "norm0"))
            inner = convolved(inner, block["convolution1"])
            inner = normalised(inner, block["norm1"], norm, statistics(name, "norm1"), activate=False)
            kept = hidden[:, ::stride, ::stride]
            if stride == 2 and projected:
                kept = convolved(hidden, block["shortcut"], stride)
                own = statistics(name, "shortcut_norm")
                kept = normalised(kept, block["shortcut_norm"], norm, own, activate=False)
            elif stride == 2:
                kept = np.pad(kept, ((0, 0),) * 3 + ((GROUP // 2, GROUP // 2),))
            hidden = relu(inner + kept)
        return hidden.mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"]

    apply = jax.jit(model.apply, static_argnums=3)
    outputs, gathered = apply(params, stats, x, True)
    np.testing.assert_allclose(outputs, forward(None), rtol=1e-9, atol=1e-10)
    assert (gathered == {}) == (norm != "batch")
    if norm == "batch":
        first, new, old = convolved(x, params["stem"]), gathered["stem_norm"]["norm"], stats["stem_norm"]["norm"]
        np.testing.assert_allclose(new["mean"], 0.9 * old["mean"] + 0.1 * first.mean((0, 1, 2)), rtol=1e-12)
        np.testing.assert_allclose(new["var"], 0.9 * old["var"] + 0.1 * first.var((0, 1, 2)), rtol=1e-12)
        again, kept = apply(params, stats, x, False)
        np.testing.assert_allclose(again, forward(stats), rtol=1e-9, atol=1e-10)
        jax.tree.map(np.testing.assert_array_equal, kept, stats)


def test_char_gpt_is_what_its_formula_says_and_sees_only_the_past():
    model = models.char_gpt(11, context=6, width=8, depth=2, heads=2)
    params, _ = built(model)
    texts = np.random.default_rng(0).integers(0, 11, (3, 5))

    def layer_norm(x, layer):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * layer["scale"] + layer["bias"]

    def dense(x, layer):
        return np.asarray(x @ layer["kernel"] + layer["bias"])

    table = np.asarray(params["characters"])
    hidden = table[texts] + np.asarray(params["places"])[:5]
    for i in range(2):
        block = params[f"block{i}"]
        query, key, value = np.split(dense(layer_norm(hidden, block["norm0"]), block["attend"]), 3, axis=-1)
        seen = np.zeros_like(hidden)
        for b in range(3):
            for head in (slice(0, 4), slice(4, 8)):
                for t in range(5):
                    scores = np.exp(key[b, : t + 1, head] @ query[b, t, head] / 2)
                    seen[b, t, head] = scores / scores.sum() @ value[b, : t + 1, head]
        hidden = hidden + dense(seen, block["merge"])
        wide = dense(layer_norm(hidden, block["norm1"]), block["widen"])
        wide = 0.5 * wide * (1 + np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
        hidden = hidden + dense(wide, block["narrow"])
    expected = layer_norm(hidden, params["norm"]) @ table.T
    apply = jax.jit(lambda texts: model.apply(params, {}, texts, False)[0])
    outputs = apply(texts)
    np.testing.assert_allclose(outputs, expected, rtol=1e-10, atol=1e-11)
    other = np.concatenate([texts[:, :-1], (texts[:, -1:] + 1) % 11], axis=1)
    changed = apply(other)
    np.testing.assert_array_equal(changed[:, :-1], outputs[:, :-1])
    assert (changed[:, -1] != outputs[:, -1]).any()


def test_numbers_of_parameters_of_other_norms():
    """The published numbers stand in the examples. Group normalisation has as many, EvoNorm a gate an activation."""
    image = (32, 32, 3)
    assert models.size(models.resnet20(image, 10, norm="group")) == 272_474
    gates = 16 + 3 * (16 + 32 + 64)
    assert models.size(models.resnet20(image, 10, norm="evo")) == 272_474 + gates


def test_group_and_evo_norm_layers_alone():
    """Their limits: a sample's scale falls out of group normalisation; EvoNorm with gate 0 halves the standardised."""
    from flax import nnx

    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 3, 2 * GROUP)))
    group = GroupNorm(2 * GROUP, nnx.Rngs(0))
    np.testing.assert_allclose(group(1e6 * x, True, False), group(1e7 * x, True, False), rtol=1e-9)
    evo = EvoNorm(2 * GROUP, nnx.Rngs(0))
    evo.gate[...] = jnp.zeros(2 * GROUP, jnp.float32)
    np.testing.assert_allclose(evo(x, True), 0.5 * x / np.sqrt(grouped(np.asarray(x), 2)[1] + EPSILON), rtol=1e-12)


def test_losses_and_accuracy():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(4, 5, 3)), rng.integers(0, 3, (4, 5))
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    right = np.take_along_axis(chances, labels[..., None], -1)[..., 0]
    np.testing.assert_allclose(models.cross_entropy(logits, labels), -np.log(right).mean(1), rtol=1e-12)
    np.testing.assert_allclose(models.accuracy(logits, labels), (logits.argmax(-1) == labels).mean(1))
    gradient = jax.grad(lambda z: models.cross_entropy(z, labels).sum())(jnp.asarray(logits))
    np.testing.assert_allclose(gradient, (chances - np.eye(3)[labels]) / 5, rtol=1e-10, atol=1e-14)
    targets = rng.normal(size=(4, 5, 3))
    np.testing.assert_allclose(models.squared_error(logits, targets), ((logits - targets) ** 2).sum((1, 2)) / 2)
    for loss in (models.cross_entropy, models.accuracy, models.squared_error):
        assert_refused(lambda loss=loss: loss(logits, labels[:, :2]), "(4, 2)", "labels")


def stacked(model, nodes, inputs, seed=0, classes=3):
    """Another model on every node, and labels for the inputs."""
    trees = [built(model, seed + i) for i in range(nodes)]
    params, stats = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    return params, stats, inputs, np.random.default_rng(seed).integers(0, classes, inputs.shape[:2])


@pytest.mark.parametrize("name", ["mlp", "residual", pytest.param("char_gpt:8:1:2", marks=pytest.mark.slow)])
def test_stacked_gradients_are_each_nodes_own(name):
    rng = np.random.default_rng(0)
    text = name.startswith("char")
    model = residual("batch", True, (4,)) if name == "residual" else models.named(name, (5,) if text else (6, 6, 2), 3)
    inputs = rng.integers(0, 3, (3, 2, 5)) if text else rng.normal(size=(3, 2, 6, 6, 2))
    params, stats, inputs, labels = stacked(model, 3, inputs)
    labels = rng.integers(0, 3, (3, 2, 5)) if text else labels
    weights = np.array([[1.0, 0.0], [0.5, 0.25], [0.0, 2.0]])
    gradient = models.stacked_gradient(model, models.cross_entropy, l2=0.3)
    got = jax.jit(gradient)(params, stats, inputs, labels, weights)

    @jax.jit
    def alone(params, stats, inputs, labels, weights):
        def value(params):
            outputs, new = model.apply(params, stats, inputs, True)
            decay = sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(params))
            return weights @ models.cross_entropy(outputs, labels) + 0.15 * decay, new

        (loss, new), gradient = jax.value_and_grad(value, has_aux=True)(params)
        return loss, gradient, new

    for i in range(3):
        nodes = jax.tree.map(lambda leaf, i=i: leaf[i], (params, stats, inputs, labels, weights))
        own = jax.tree.map(lambda leaf, i=i: leaf[i], got)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), own, alone(*nodes))


def test_no_grouped_convolution_where_patches_are_taken():
    """The program of the stacked gradient holds none; the native form does, and gives the same numbers."""
    inputs = np.random.default_rng(0).normal(size=(3, 4, 8, 8, 1))
    results, programs = [], []
    for form in ("patches", "native"):
        model = models.cnn((8, 8, 1), 3, (4, 6), convolution=form)
        args = stacked(model, 3, inputs)
        lowered = jax.jit(models.stacked_gradient(model, models.cross_entropy)).lower(*args)
        programs.append(lowered.as_text())
        results.append(lowered.compile()(*args))
    assert "stablehlo.convolution" not in programs[0]
    assert "feature_group_count = 3" in programs[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), *results)
    chosen = jax.jit(models.stacked_gradient(models.cnn((8, 8, 1), 3, (4, 6)), models.cross_entropy)).lower(*args)
    assert ("stablehlo.convolution" in chosen.as_text()) == (jax.default_backend() != "cpu")


@pytest.mark.parametrize(("size", "window", "stride"), [(8, 3, 1), (7, 3, 2), (8, 1, 2), (1, 3, 1), (8, 3, 2)])
def test_patches_are_the_native_convolution(size, window, stride):
    rng = np.random.default_rng(0)
    x, kernel = jnp.asarray(rng.normal(size=(2, size, size, 3))), jnp.asarray(rng.normal(size=(window, window, 3, 4)))
    around = ((window // 2, window // 2),) * 2

    def native(x, kernel):
        numbers = jax.lax.conv_dimension_numbers(x.shape, kernel.shape, ("NHWC", "HWIO", "NHWC"))
        return jax.lax.conv_general_dilated(x, kernel, (stride, stride), around, dimension_numbers=numbers)

    ours, back = jax.vjp(lambda x, kernel: _layers.convolve(x, kernel, (stride, stride), around), x, kernel)
    theirs, expected = jax.vjp(native, x, kernel)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)
    cotangent = jnp.asarray(rng.normal(size=ours.shape))
    for a, b in zip(back(cotangent), expected(cotangent), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def test_microbatches_agree_and_bound_the_memory():
    """Nine nodes by two leave a last one; the temporaries are those of two nodes, not of nine."""
    model = models.cnn((8, 8, 1), 3, (8,))
    args = stacked(model, 9, np.random.default_rng(0).normal(size=(9, 16, 8, 8, 1)))
    programs = [
        jax.jit(models.stacked_gradient(model, models.cross_entropy, microbatch=k)).lower(*args).compile()
        for k in (None, 2)
    ]
    whole, parts = (program(*args) for program in programs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14), whole, parts)
    sizes = [program.memory_analysis().temp_size_in_bytes for program in programs]
    assert sizes[1] < sizes[0] / 2


def convolutions_with_dropout(rngs):
    return vision._Convolutions((4, 1, 1), 3, (8,), (True,), 0.5, "auto", rngs)


@pytest.mark.parametrize("name", ["convolutions", pytest.param("char_gpt:8:1:2:0.5", marks=pytest.mark.slow)])
def test_dropout_draws_with_the_nodes_keys_in_training_only(name):
    text = name.startswith("char")
    model = models.named(name, (4,), 5) if text else models.from_module(name, convolutions_with_dropout)
    rng = np.random.default_rng(0)
    params, _, inputs, _ = stacked(model, 2, rng.integers(0, 5, (2, 3, 4)) if text else rng.normal(size=(2, 3, 4)))
    train = jax.jit(jax.vmap(lambda params, inputs, key: model.apply(params, {}, inputs, True, key)[0]))
    keys = jax.random.split(KEY, 2)
    first = train(params, inputs, keys)
    np.testing.assert_array_equal(first, train(params, inputs, keys))
    assert (first != train(params, inputs, keys[::-1])).any()
    one = jax.tree.map(lambda leaf: leaf[0], params)
    still = jax.jit(lambda key: model.apply(one, {}, inputs[0], False, key)[0])
    np.testing.assert_array_equal(still(None), still(KEY))
    assert_refused(lambda: model.apply(one, {}, inputs[0], True), "key", "0.5", "None")


def test_params_are_plain_dicts_seeded_and_float32():
    for model in (models.logistic(72, 3), residual("batch", True, (4,)), models.char_gpt(3, width=8)):
        trees = jax.eval_shape(model.init, KEY)
        for path, leaf in jax.tree.leaves_with_path(trees[0]):
            assert all(isinstance(step, jax.tree_util.DictKey) and isinstance(step.key, str) for step in path)
            assert leaf.dtype == jnp.float32
        inputs = jax.ShapeDtypeStruct((2, 6) if "characters" in trees[0] else (2, 6, 6, 2), jnp.float32)
        if "characters" in trees[0]:
            inputs = inputs.update(dtype=jnp.int32)
        outputs, stats = jax.eval_shape(lambda p, s, x, model=model: model.apply(p, s, x, True), *trees, inputs)
        assert outputs.dtype == jnp.float32
        assert stats == trees[1]
    init = jax.jit(models.logistic(72, 3).init)
    np.testing.assert_array_equal(init(KEY)[0]["linear0"]["kernel"], init(KEY)[0]["linear0"]["kernel"])
    assert (init(KEY)[0]["linear0"]["kernel"] != init(jax.random.key(1))[0]["linear0"]["kernel"]).all()


def test_a_few_steps_of_gossip_learn():
    """Decentralised SGD with the stacked gradient: two well separated blobs, all nodes classify them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (4, 32))
    inputs = (rng.normal(size=(4, 32, 3)) + 3 * (2 * labels[..., None] - 1)).astype(np.float32)
    model = models.mlp(3, 2, (8,))
    params, stats = model.init(KEY)
    gradient = models.stacked_gradient(model, models.cross_entropy)
    final, _, _ = adozoo.simulate(
        adozoo.dsgd(0.2, adozoo.mixing(adozoo.graphs.ring(4))),
        lambda x, step, key: gradient(x, stats, inputs, labels)[1],
        adozoo.replicate(params, 4),
        60,
    )
    outputs = jax.vmap(lambda x, batch: model.apply(x, {}, batch, False)[0])(final, inputs)
    assert jax.vmap(models.accuracy)(outputs, labels).mean() > 0.98


def test_names_and_refusals():
    image = (8, 8, 1)
    assert models.named("mlp:32:16", image, 10).name == "mlp:32:16"
    assert models.size(models.named("mlp:32", image, 10)) == models.size(models.mlp(64, 10, (32,)))
    assert models.size(models.named("vgg11:0.5", image, 10)) == models.size(models.vgg11(image, 10, 0.5))
    for spec in (
        "logistic",
        "cnn:4",
        "cnn:4:8:evo",
        "resnet20:evo:8:identity",
        "resnet18:group:8",
        "char_gpt:8:1:2:0.1",
    ):
        model = models.named(spec, (6,) if spec.startswith("char") else image, 7)
        again = models.named(model.name, (6,) if spec.startswith("char") else image, 7)
        assert models.size(model) == models.size(again) > 0
    assert_refused(lambda: models.named("resnet21", image, 10), "resnet21", "resnet20")
    assert_refused(lambda: models.named("resnet20:grup", image, 10), "grup", "'group'")
    assert_refused(lambda: models.named("cnn", (64,), 10), "shape", "(64,)", "mlp")
    assert_refused(lambda: models.named("vgg11:a:b:c:d", image, 10), "does not fit")
    assert_refused(lambda: models.mlp(64, 0), "classes", "0")
    assert_refused(lambda: models.char_gpt(65, width=10, heads=4), "width", "10", "heads")
    assert_refused(lambda: models.char_gpt(65, dropout=1.0), "dropout", "1.0")
    assert_refused(lambda: models.stacked_gradient(models.mlp(2, 2), models.cross_entropy, 0), "microbatch", "0")
    assert_refused(lambda: models.cnn(image, 10, convolution="fast").init(KEY), "fast", "patches")
