"""Table 1: the net is better than Fisher vectors of SIFT and colour (45.7% top-1 on ImageNet).

    python -m experiments.baselines.sift_fisher

The method of Sánchez and Perronnin (2011) from well-kept libraries, on Imagenette, with the split
and the test images of our net: dense descriptors (OpenCV), 64 principal axes and the place of the
patch, a mixture of Gaussians, improved Fisher vectors (scikit-image) and logistic regression
(scikit-learn) on each of two kinds of descriptor, their probabilities averaged. The penalty is
chosen on the validation images. Needs the extra `baselines`. Writes
results/baseline_sift_fisher.json and .png.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from absl import flags

from experiments import harness

FLAGS = flags.FLAGS
flags.DEFINE_integer("modes", 64, "Gaussians of the mixture")


def main(_) -> None:
    """Trains, tests, writes."""
    import skimage  # noqa: F401  `learn` needs it, hours later

    from experiments.baselines import classic

    harness.shorten(modes=4)
    classic.measure("sift_fisher", learn, whiten=False, modes=FLAGS.modes)


def learn(sample: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Fisher vectors of a mixture that fits the sample [M, D]."""
    from skimage.feature import fisher_vector, learn_gmm

    options = {"covariance_type": "diag", "max_iter": 30, "random_state": FLAGS.seed}
    gmm = learn_gmm(sample, n_modes=FLAGS.modes, gm_args=options)
    return partial(fisher_vector, gmm=gmm, improved=True)


if __name__ == "__main__":
    harness.run(main)
