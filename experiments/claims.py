"""The claims of the paper that a number can carry. How they are judged: `experiments.verdicts`."""

from typing import NamedTuple

from experiments.findings import (
    baseline,
    biases,
    ensembles,
    figure1,
    lrn_cifar,
    one_net,
    pre_training,
)
from experiments.findings_inside import off_center, retrieval, specialisation
from experiments.findings_of_ablations import ablation, dropout_slows
from experiments.found import Find, untested


class Claim(NamedTuple):
    """A line of the ledger."""

    section: str
    claim: str
    paper: str
    command: str  # that tests it, by default
    find: Find


_ABLATIONS = "python -m experiments.paper.ablations"
_IMAGENET = "python -m alexnet_jax.main --config={0} --workdir=runs/{0}"
_FIVE, _TWO = "runs/imagenet2012_5", "runs/imagenet2012_pretrained"
_SEVEN_NETS = " && ".join(
    (
        f"python -m alexnet_jax.main --config=imagenet2012 --workdir={_FIVE} --config.ensemble=5",
        _IMAGENET.format("imagenet_fall2011"),
        f"python -m alexnet_jax.main --config=imagenet2012_pretrained --workdir={_TWO} "
        "--config.init_from=runs/imagenet_fall2011 --config.ensemble=2",
        f"python -m alexnet_jax.evaluate --workdir={_FIVE} --workdir={_TWO}",
    )
)
CLAIMS = (
    Claim(
        "Table 1",
        "One net, ten views, ILSVRC-2010 test",
        "37.5 / 17.0%",
        _IMAGENET.format("imagenet2010"),
        one_net,
    ),
    Claim(
        "Table 1",
        "SIFT and Fisher vectors are worse than the net",
        "45.7 / 25.7%",
        "python -m experiments.baselines.sift_fisher",
        baseline("sift_fisher", "modes"),
    ),
    Claim(
        "Table 1",
        "Sparse coding is worse than the net",
        "47.1 / 28.2%",
        "python -m experiments.baselines.sparse_coding",
        baseline("sparse_coding", "atoms", "threshold"),
    ),
    Claim(
        "Table 2",
        "One net, ILSVRC-2012 validation",
        "40.7 / 18.2%",
        _IMAGENET.format("imagenet2012"),
        untested,
    ),
    Claim(
        "Table 2",
        "The mean of five nets is better than one",
        "40.7 → 38.1%",
        "python -m experiments.paper.ensemble",
        ensembles,
    ),
    Claim(
        "Table 2",
        "Pre-training on more classes helps (1 CNN*)",
        "40.7 → 39.0%",
        "python -m experiments.paper.fine_tune",
        pre_training,
    ),
    Claim(
        "Table 2",
        "Seven nets, two pre-trained",
        "36.7 / 15.4%",
        _SEVEN_NETS,
        untested,
    ),
    Claim(
        "6",
        "Fall 2009 release, 10,184 classes",
        "67.4 / 40.9%",
        "",  # no recipe: half of that release is its test
        untested,
    ),
    Claim(
        "3.1, figure 1",
        "ReLUs reach 25% training error six times sooner than tanh",
        "6 times",
        "python -m experiments.paper.figure1",
        figure1,
    ),
    Claim(
        "3.1",
        "The whole net learns sooner with ReLU than with tanh",
        "no number",
        _ABLATIONS,
        ablation("tanh"),
    ),
    Claim(
        "3.2",
        "The one-GPU net with half the kernels is worse",
        "+1.7 points",
        _ABLATIONS,
        ablation("one-GPU net"),
    ),
    Claim(
        "3.2",
        "Towers that meet at the last layer alone are worse",
        "+1.2 points (authors' log 150)",
        _ABLATIONS,
        ablation("towers apart"),
    ),
    Claim("3.3", "Without LRN worse", "+1.4 points", _ABLATIONS, ablation("no LRN")),
    Claim(
        "3.3",
        "LRN takes a four-layer CIFAR-10 net from 13% to 11%",
        "-2 points",
        "python -m experiments.paper.lrn_cifar",
        lrn_cifar(),
    ),
    Claim(
        "3.3",
        "… and in the authors' published nets from 19% to 18%, within maps",
        "-1 point",
        "python -m experiments.paper.lrn_cifar '--net=18%'",
        lrn_cifar("18%", "lrn_cifar_18pct"),
    ),
    Claim(
        "3.4",
        "Without overlap of the pooling windows worse",
        "+0.4 points",
        _ABLATIONS,
        ablation("plain pooling"),
    ),
    Claim(
        "3.4",
        "… and easier to overfit: a larger gap from training to test",
        "no number",
        _ABLATIONS,
        ablation("plain pooling", "overfitting"),
    ),
    Claim("1, 7", "Without conv3 worse", "about +2 points", _ABLATIONS, ablation("no conv3")),
    Claim("1, 7", "Without conv4 worse", "about +2 points", _ABLATIONS, ablation("no conv4")),
    Claim("1, 7", "Without conv5 worse", "no number", _ABLATIONS, ablation("no conv5")),
    Claim(
        "4.1",
        "Without crops and flips substantial overfitting",
        "no number",
        _ABLATIONS,
        ablation("no crops, no flips", "overfitting"),
    ),
    Claim(
        "4.1", "Without the colour shift worse", "over +1 point", _ABLATIONS, ablation("no colour")
    ),
    Claim(
        "4.2",
        "Without dropout substantial overfitting",
        "no number",
        _ABLATIONS,
        ablation("no dropout", "overfitting"),
    ),
    Claim("4.2", "Dropout doubles the iterations", "2 times", _ABLATIONS, dropout_slows),
    Claim(
        "5",
        "Without weight decay the training error is higher",
        "no number",
        _ABLATIONS,
        ablation("no weight decay", "training error"),
    ),
    Claim(
        "5",
        "Biases of 1 in conv2, conv4, conv5 and the hidden layers speed up the start",
        "no number",
        "python -m experiments.paper.plateau",
        biases,
    ),
    Claim(
        "6.1, figure 3",
        "One tower turns colour-agnostic, the other colour-specific, in every run",
        "every run",
        "python -m experiments.paper.specialisation",
        specialisation,
    ),
    Claim(
        "6.1, figure 4",
        "The nearest images by the last hidden layer are alike in what they show, not in pixels",
        "no number",
        "python -m experiments.paper.look_inside --workdir=RUN",
        retrieval,
    ),
    Claim(
        "6.1, figure 4",
        "Objects off the centre are recognised",
        "no number",
        "python -m experiments.paper.look_inside --workdir=RUN",
        off_center,
    ),
)
