"""What surrounds the network in training and test, in plain NumPy (sections 4.1, 5, 6)."""

import numpy as np

Array = np.ndarray


def update(w: Array, v: Array, gradient: Array, *, rate, momentum=0.9, decay=0.0005):
    """The paper's rule (§5): v <- 0.9 v - 0.0005 e w - e g, then w <- w + v. Biases: decay=0."""
    v = momentum * v - decay * rate * w - rate * gradient
    return w + v, v


def top_k_error(scores: Array, label: int, k: int) -> float:
    """1 - credit for one example: a tie at the border shares the slots that are left.

    Full credit if all that tie with the label fit in; else slots left / number tied.
    """
    above = int((scores > scores[label]).sum())
    tied = int((scores == scores[label]).sum())
    left = k - above
    if left <= 0:
        return 1.0
    return 0.0 if tied <= left else 1.0 - left / tied


def ten_views(image: Array, size: int) -> Array:
    """Top left, top right, centre, bottom left, bottom right; then the same five mirrored."""
    last = image.shape[0] - size
    middle = last // 2
    corners = [(0, 0), (0, last), (middle, middle), (last, 0), (last, last)]
    views = [image[y : y + size, x : x + size] for y, x in corners]
    return np.stack(views + [view[:, ::-1] for view in views])


def color_shift(alphas: Array, eigenvectors: Array, deviations: Array) -> Array:
    """[p1 p2 p3] [a1 l1, a2 l2, a3 l3]^T (§4.1), l the standard deviations, vectors in columns."""
    return sum(alphas[i] * deviations[i] * eigenvectors[:, i] for i in range(3))
