"""What results hold about claims, but for ablations and towers; None where it was not run."""

from typing import Any

from experiments.found import (
    IMAGENET,
    Find,
    Found,
    command,
    counted,
    listed,
    log_of_one_net,
    result,
    size,
    size_flags,
)
from experiments.verdicts import (
    CUT_SHORT,
    NOT,
    REPRODUCED,
    UNTESTED,
    Errors,
    capped,
    judge,
    mean_of,
    percent,
    rule_of_sooner,
    seeds_in_words,
    sooner,
    still_learning,
)


def one_net() -> Found | None:
    """The whole net on real photographs."""
    log = log_of_one_net()
    if not log:
        return None
    ten, center = (percent(log[name]["top1_error"]) for name in ("test_ten_views", "test"))
    return Found(
        f"{ten}% ten views, {center}% centre crop (top-1)",
        f"Imagenette (10 classes, 8,996 training photographs), 224 pixels, {seeds_in_words(1)}, "
        f"{log['validation']['epoch']:g} epochs, the best on the validation images after "
        f"{log['test']['epoch']:g}; the recipe of the claim is --config=imagenet2010",
        f"{UNTESTED}: {IMAGENET}",
        "python -m alexnet_jax.main --workdir=runs/imagenette_224 --config=imagenette "
        "--config.cache=device --config.steps_per_call=70 --config.log_every_steps=70 "
        "--config.model.precision=tensorfloat32",
    )


ENOUGH_OF_RELU = 5
NETS = {"relu": "ReLU", "tanh": "tanh"}


def figure1() -> Found | None:
    """ReLU against tanh."""
    table = result("figure1")
    if not table or not {*NETS} <= table["epochs_to_25_percent"].keys():
        return None
    relu, tanh = (table["epochs_to_25_percent"][name] for name in NETS)
    found = sooner(relu, tanh, ENOUGH_OF_RELU)
    never = sorted({seed for net in (relu, tanh) for seed, one in net.items() if one is None})
    rates, best = table["rates_tried"], table["best_rates"]
    edge = [
        label for name, label in NETS.items() if best[name] in (rates[name][0], rates[name][-1])
    ]
    texts = [
        f"tanh takes {found.text} (to 25% training error: ReLU {listed(relu)}; tanh "
        f"{listed(tanh)})",
        *(
            f"{label}: rates {', '.join(f'{rate:g}' for rate in rates[name])}, the best with "
            f"{seeds_in_words(len(table['epochs_to_25_percent'][name]))}"
            for name, label in NETS.items()
        ),
    ]
    if rates["relu"] != rates["tanh"]:
        texts.append("the rates tried are not the same")
    if edge:
        texts.append(f"a better rate may lie beyond those tried of {' and of '.join(edge)}")
    if never:
        texts.append(f"the mean is without seeds that never reach it: {', '.join(never)}")
    return Found(
        "; ".join(texts),
        f"{table['data']}, {seeds_in_words(found.seeds)} of both nets",
        found.verdict,
        _command_of_figure1(table),
        "figure1.png",
        rule_of_sooner(ENOUGH_OF_RELU),
    )


def biases() -> Found | None:
    """Hidden biases of 1 against 0: updates until the training loss leaves that of guessing."""
    table = result("plateau")
    if not table:
        return None

    def updates(bias: float, weights: str, pixels: str = "0 to 255") -> dict:
        asked = {"pixels": pixels, "weights": weights, "bias": bias}
        return next(row["updates"] for row in table["starts"] if asked.items() <= row.items())

    ones, noughts = (updates(bias, "original") for bias in (1, 0))
    found = sooner(ones, noughts, 1)
    texts = [
        f"biases of 0 take {found.text} (updates to a training loss of "
        f"{table['left_at_a_loss_of']:g}: biases of 1 {listed(ones)}; of 0 {listed(noughts)})",
        f"with weights of 0.01 everywhere: biases of 1 {listed(updates(1, 'paper'))}; of 0 "
        f"{listed(updates(0, 'paper'))}",
    ]
    return Found(
        "; ".join(texts),
        f"{table['data']}, at most {table['epochs_at_most']} epochs of "
        f"{table['updates_an_epoch']} updates, {seeds_in_words(found.seeds)}",
        found.verdict,
        command(
            "paper.plateau",
            num_epochs=table["epochs_at_most"],
            seed=[int(seed) for seed in ones],
        ),
        "plateau.png",
        f"{REPRODUCED}: later with every seed; else {NOT}",
    )


def _command_of_figure1(table: dict) -> str:
    """One command; where the nets were not tried alike, one for each net."""
    runs = table["runs"]

    def of(nets: list[str], **flags: Any) -> str:
        those = [run for run in runs if run["activation"] in nets]
        tried = {flag: list(dict.fromkeys(run[flag] for run in those)) for flag in ("rate", "seed")}
        return command(
            "paper.figure1",
            images=int(table["data"].split()[1]),  # "cifar10, 10000 training images"
            num_epochs=max(len(run["training_error"]) for run in runs),  # none needs more
            precision=table.get("precision"),
            **flags,
            **tried,
        )

    alone = {net: of([net]) for net in NETS}
    if len({*alone.values()}) == 1:
        return of([*NETS])
    return " && ".join(of([net], activation=net) for net in NETS)


def lrn_cifar(net: str = "conv-local", name: str = "lrn_cifar") -> Find:
    """A net for CIFAR-10 with its norms and without, in a result of this name."""

    def find() -> Found | None:
        table = result(name)
        if not table or not (row := table["nets"].get(net)):
            return None
        runs = [run for run in table["runs"] if run["net"] == net]
        images = runs[0]["images"]
        errors = Errors(row["without"], row["with_norm"], images["test"], pairs=row.get("pairs"))
        found = judge(errors, claimed=-1)
        views = {"ten": "ten views", "center": "centre crop"}[runs[0]["views"]]
        learning = ""
        if found.seeds:
            learning = still_learning(*(_ends(runs, norm) for norm in (False, True)))
        return Found(
            f"test error, {views}: {found.text}{learning}",
            f"cifar10, {counted(images)}, {table['num_epochs']} epochs, "
            f"{seeds_in_words(found.seeds)}",
            CUT_SHORT.get(found.verdict, found.verdict) if learning else found.verdict,
            command(
                "paper.lrn_cifar",
                images=images["train"],
                num_epochs=table["num_epochs"],
                precision=table["precision"],
                seed=list(dict.fromkeys(run["seed"] for run in runs)),
                net=list(table["nets"]),
            ),
            f"{name}.png",
        )

    return find


def _ends(runs: list[dict], norm: bool) -> tuple[float | None, float | None]:
    """Training and test error of the centre crops, the mean of the nets with norms or without."""
    nets = [run for run in runs if run["norm"] == norm]
    trained = mean_of(run["train"]["top1_error"] for run in nets)
    return trained, mean_of(run["test"]["center"]["top1_error"] for run in nets)


def ensembles() -> Found | None:
    """Several nets against one, image by image."""
    table = result("ensemble")
    if not table:
        return None
    view = table["views"]["ten"]
    errors = [row["top1_error"] for row in view["means"]]  # of 1 net, of 2, …: of each subset
    one, *middle, (together,) = errors
    # The mean is one run: what another five nets would come to is not known.
    images, pairs = table["images"]["test"], {0: view["pairs"]}
    found = judge(Errors({0: sum(one) / len(one)}, {0: together}, images, pairs=pairs), claimed=-1)
    texts = [
        f"test error, ten views: {found.text}",
        f"alone {percent(min(one))} to {percent(max(one))}%",
        *(
            f"means of {nets} {percent(sum(subsets) / len(subsets))}%"
            for nets, subsets in enumerate(middle, 2)
        ),
    ]
    return Found(
        "; ".join(texts),
        f"Imagenette, {size(table)}, {counted(table['images'])}, one mean of {len(one)} nets",
        found.verdict,
        command(
            "paper.ensemble",
            **size_flags(table),
            precision=table["precision"],
            seed=table["seeds"],
        ),
        "ensemble.png",
    )


def pre_training() -> Found | None:
    """Fine-tuning against from scratch."""
    table = result("fine_tune")
    if not table:
        return None
    scratch, tuned = (
        dict(
            zip(
                table["seeds"],
                (thirds[-1] for thirds in table["test_top1_error_after_each_third"][way]),
                strict=True,
            )
        )
        for way in ("from scratch", "fine-tuned")
    )
    found = judge(Errors(scratch, tuned, table["test_images"]), claimed=-1)
    trained = table["training_top1_error"]
    learning = still_learning(
        (mean_of(trained["from scratch"]), mean_of(scratch.values())),
        (mean_of(trained["fine-tuned"]), mean_of(tuned.values())),
    )
    # All seeds begin at one pre-trained net: what another would come to is not known.
    each = "; ".join(f"{percent(scratch[s], 1)} → {percent(tuned[s], 1)}%" for s in scratch)
    classes = len(table["classes"])
    return Found(
        f"test error, centre crop: {found.text}{learning}; by seed {each}",
        f"{classes} classes of Imagenette after the other {classes}, {table['images']:,} training "
        f"and {table['test_images']:,} test images, {table['network']}, {table['epochs']} epochs, "
        f"{seeds_in_words(found.seeds)} of one pre-trained net",
        CUT_SHORT.get(found.verdict, found.verdict) if learning else capped(found.verdict, 1),
        command(
            "paper.fine_tune",
            seed=table["seeds"],
            images=table["images"] // classes,
            full=True if table["network"] == "paper" else None,
        ),
        "fine_tune.png",
    )


def baseline(name: str, *options: str) -> Find:
    """A classic method, with flags of its own, against the net of `one_net`, on the same images."""

    def find() -> Found | None:
        table, log = result(f"baseline_{name}"), log_of_one_net()
        if not table or not log:
            return None
        ten, images = log["test_ten_views"], table["of"]
        found = judge(Errors({0: ten["top1_error"]}, {0: table["top1_error"]}, images))
        weakest = max(table.get("penalties", [100]))  # of the inverse, C
        edge = [kind for kind, row in table["kinds"].items() if row.get("C") == weakest]
        tried = f"; of {' and '.join(edge)} the weakest penalty tried was the best" if edge else ""
        return Found(
            f"test error, our net with ten views → this: {found.text}; top-5: "
            f"{percent(ten['top5_error'])} → {percent(table['top5_error'])}%; of SIFT alone "
            f"{percent(table['kinds']['SIFT']['top1_error'])}%{tried}",
            f"Imagenette, {table['training images']:,} training and {images:,} test images, those "
            f"of our net at 224 pixels, here at 160, {seeds_in_words(1)} of each",
            found.verdict,
            command(
                f"baselines.{name}",
                seed=table["seed"],
                **{option: table[option] for option in options},
            ),
            f"baseline_{name}.png",
        )

    return find
