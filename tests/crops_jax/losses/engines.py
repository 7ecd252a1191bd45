"""The engines of the streaming loss side by side: sums, and gradients that random cotangents of them pull."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from crops_jax.losses.level_sums import streaming
from crops_jax.losses.level_sums.sums import LOWEST
from tests.crops_jax.losses.test_h_infonce import random_case, sparse


@functools.partial(jax.jit, static_argnames=("plan", "margin"))
def pulled(q, d, temperatures, doc_index, offset, cotangents, *, plan, margin):
    threshold = jnp.full(q.shape[0], 0.3) if margin else None

    def sums(q, d, temperatures):
        return streaming.streaming_sums(plan, q, d, temperatures, doc_index, offset, threshold)

    raw, pull = jax.vjp(sums, q, d, temperatures)
    has_level_0 = raw.log_total > LOWEST / 2
    cotangent = raw._replace(
        greatest=jnp.zeros_like(raw.greatest),
        log_total=jnp.where(has_level_0, cotangents[0], 0.0),
        named=jnp.where(doc_index >= 0, cotangents[1], 0.0),
        ignored=np.zeros(raw.ignored.shape, jax.dtypes.float0),
    )
    return raw, pull(cotangent)


def side_by_side(
    engine, queries, docs, dim, *, temperatures=(0.1,), margin=False, mesh=None, exchange="gather", dtype="float32"
):
    """Yields what "tiles" and `engine` make of a batch with masked columns, offsets and a row without level 0.

    Each is the sums, the gradients, and the scale of the gradient of the temperatures. That gradient is a sum over all
    pairs whose terms have both signs, so its rounding error is a share of the sum of their magnitudes and not of the
    sum. A score is linear in q and in 1 / temperature, so the terms of a query are those of q times its gradient.
    """
    q, d, matrix, _, mask = random_case(3, queries=queries, docs=docs, dim=dim)
    matrix[0, mask] = 1
    doc_index = np.where(mask[sparse(matrix).doc_index], sparse(matrix).doc_index, -1)
    offset = np.where(mask, np.linspace(0, 2, docs), LOWEST).astype(np.float32)
    random = np.random.default_rng(0)
    cotangents = [random.normal(size=(queries, n)).astype(np.float32) for n in (len(temperatures), doc_index.shape[1])]
    q, d, temperatures = jnp.asarray(q, dtype), jnp.asarray(d, dtype), jnp.float32(temperatures)
    for name in ("tiles", engine):
        plan = streaming.Plan(mesh, ("data",) if mesh else (), exchange, 4, name, interpret=True)
        raw, gradients = pulled(q, d, temperatures, doc_index, offset, cotangents, plan=plan, margin=margin)
        terms = np.abs(np.float64(q) * np.float64(gradients[0]))
        yield raw, gradients, terms.sum() / float(temperatures.min())


def assert_same(engines, tolerance=2e-6):
    (raw, gradients, temperature_scale), (other_raw, other_gradients, _) = engines
    np.testing.assert_array_equal(raw.ignored, other_raw.ignored)
    pairs = list(zip([*raw[:3], *gradients], [*other_raw[:3], *other_gradients], strict=True))
    for position, (one, other) in enumerate(pairs):
        one, other = np.float64(one), np.float64(other)
        assert np.isfinite(other).all()
        is_last = position == len(pairs) - 1
        scale = temperature_scale if is_last else np.abs(one[one > LOWEST / 4]).max()
        assert np.abs(one - other).max() <= tolerance * scale
