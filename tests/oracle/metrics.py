"""Attention over a (compressed) cache, and the errors defined for the result file."""
import numpy as np


def softmax(logits):
    """In place, along the last axis; a row of nothing but -inf becomes zeros."""
    top = logits.max(-1, keepdims=True)
    logits -= np.where(np.isfinite(top), top, np.float32(0))
    np.exp(logits, out=logits)
    total = logits.sum(-1, keepdims=True)
    logits /= np.where(total == 0, np.float32(1), total)
    return logits


def attend(layer, keys, values, positions):
    """Outputs [s, h, group * query, c] of the judged queries over the tokens kept."""
    s, h, group, count, channels = layer.judged.shape
    queries = layer.judged.reshape(s, h, group * count, channels)
    if keys.shape[2] == 0 or count == 0:
        return np.zeros((s, h, group * count, values.shape[-1]), np.float32)
    logits = queries @ np.swapaxes(keys, -1, -2)
    logits *= np.float32(layer.scale)
    if layer.window > 0:
        oldest = np.tile(layer.judged_positions, group) - layer.window
        logits[positions[:, :, None, :] <= oldest[:, None]] = -np.inf
    return softmax(logits) @ values


def ratio(numerator, denominator):
    """Element by element, with 0/0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(numerator == 0, 0.0, np.divide(numerator, denominator))


def norm(x, axis=None):
    return np.sqrt(np.square(x.astype(np.float64)).sum(axis))


def tensor_error(exact, decoded):
    """Over the tokens kept; nothing kept gives NaN."""
    return float(ratio(norm(exact - decoded), norm(exact))) if exact.size else float("nan")


def output_errors(exact, decoded):
    """(error of the layer, mean cosine, errors of the single vectors); no judged query gives NaN."""
    if exact.size == 0:
        return float("nan"), float("nan"), np.empty(0)
    exact, decoded = exact.astype(np.float64), decoded.astype(np.float64)
    difference, length = norm(exact - decoded, -1), norm(exact, -1)
    dot = (exact * decoded).sum(-1)
    cosine = ratio(dot, length * norm(decoded, -1)).mean()
    total = float(ratio(norm(exact - decoded), norm(exact)))
    return total, float(cosine), ratio(difference, length).ravel()


def pooled(vector_errors):
    """Median, 95th percentile (linear between neighbours) and largest of all single vectors."""
    if vector_errors.size == 0:
        return [float("nan")] * 3
    return [float(np.quantile(vector_errors, q)) for q in (0.5, 0.95, 1.0)]
