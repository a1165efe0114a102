"""What is found in results that are made up: the verdict, the row, the command."""

import json
import shlex

import pytest

from alexnet_jax.configs import imagenette
from experiments import (
    findings,
    findings_inside,
    findings_of_ablations,
    harness,
    ledger,
    settings,
)
from tests.test_printed_commands import flags_of, split

TEN, IMAGES = {"top1_error": 0.2, "top5_error": 0.02}, {"train": 8000, "test": 2000}


def _variant(name, **errors):
    found = {key: {"values": values} for key, values in errors.items()}
    seeds = [*range(len(errors["train"]))]
    of_each = {"left_the_plateau": [1] * len(seeds), "color_shares": [[None, None]] * len(seeds)}
    return {"variant": name, "seeds": seeds, **of_each, **found}


def _ablations(theirs, ours, variant="no LRN", errors=("test_ten",), runs=()):
    return "ablations_128", {
        "image_size": 128, "epochs": 60, "precision": "tensorfloat32",
        "runs": [{"variant": "", "images": IMAGES}, *runs],
        "variants": [
            _variant(name, **{
                key: values if key in errors else [0.0] * len(values)
                for key in ("test_ten", "test_center", "train")
            })
            for name, values in (("paper", theirs), (variant, ours))
        ],
    }  # fmt: skip


def _overfitting(theirs, ours):
    return _ablations(theirs, ours, "no dropout", ("test_center",))


def _training(theirs, ours):
    name, table = _ablations(theirs, ours, "no weight decay", ("train",))
    for row in table["variants"]:
        row["test_center"]["values"] = [0.9] * len(row["seeds"])
    return name, table


def _lrn(theirs, ours, net="conv-local"):
    without, with_norm = (dict(enumerate(errors)) for errors in (theirs, ours))
    ends = {"train": {"top1_error": 0.1}, "test": {"center": {"top1_error": 0.2}}}
    runs = [
        {"net": net, "norm": norm, "views": "ten", "seed": seed, "images": IMAGES} | ends
        for norm, of in ((False, without), (True, with_norm)) for seed in of
    ]  # fmt: skip
    nets = {net: {"without": without, "with_norm": with_norm}}
    return "lrn_cifar", {"num_epochs": 12, "precision": "float32", "nets": nets, "runs": runs}


def _ensemble(theirs, ours):
    means = [{"nets": 1, "top1_error": theirs}, {"nets": len(theirs), "top1_error": ours}]
    return "ensemble", {
        "images": IMAGES, "image_size": 64, "width": 0.5, "epochs": 60, "precision": "float32",
        "seeds": [*range(len(theirs))], "views": {"ten": {"means": means, "pairs": [210.5, 10.5]}},
    }  # fmt: skip


def _fine_tune(theirs, ours):
    return "fine_tune", {
        "test_top1_error_after_each_third": {
            way: [[0.9, 0.9, float("nan") if error is None else error] for error in errors]
            for way, errors in (("from scratch", theirs), ("fine-tuned", ours))
        },
        "seeds": [*range(len(ours))], "classes": [*"abcde"], "images": 500, "test_images": 2000,
        "network": "half width, 64 pixels", "epochs": 15,
        "training_top1_error": {way: [0.01] * 3 for way in ("from scratch", "fine-tuned")},
    }  # fmt: skip


def _baseline(theirs, ours):
    return "baseline_sift_fisher", {
        "top1_error": ours[0], "top5_error": 0.02, "of": 2000, "kinds": {"SIFT": TEN},
        "training images": 8996, "seed": 0, "modes": 64,
    }  # fmt: skip


def _figure1(theirs, ours):
    epochs = {
        net: {str(seed): one for seed, one in enumerate(of)}
        for net, of in (("tanh", theirs), ("relu", ours))
    }
    return "figure1", {
        "epochs_to_25_percent": epochs, "data": "cifar10, 10000 training images",
        "rates_tried": {net: [0.001, 0.002] for net in epochs},
        "best_rates": dict.fromkeys(epochs, 0.002), "precision": "float32",
        "runs": [
            {"activation": net, "rate": rate, "seed": 0, "training_error": [0.5] * 9}
            for net in epochs for rate in (0.001, 0.002)
        ],
    }  # fmt: skip


def _dropout(theirs, ours):
    """Curves that are at 25% from so many epochs on, and once before."""
    runs = [
        {"variant": name, "seed": seed, "epochs": [
            {split: {"top1_error": 0.25 if epochs and (epoch >= epochs or epoch == 1) else 0.9}
             for split in ("train", "validation")}
            for epoch in range(1, 60)
        ]}
        for name, of in (("paper", theirs), ("no dropout", ours))
        for seed, epochs in enumerate(of)
    ]  # fmt: skip
    nought = [[0.0] * len(of) for of in (theirs, ours)]
    return _ablations(*nought, "no dropout", runs=runs)


def _specialised(theirs, ours):
    mean = {"mean": None if None in ours else 0.1, "values": [0.1] * len(ours)}
    row = {"seeds": [*range(len(ours))], "p": ours, "lower": mean, "higher": mean, "split": mean}
    table = {"image_size": 64, "width": 0.5, "epochs": 12, "nets": {"paper": row}}
    return "specialisation_64", table


def _inside(theirs, ours):
    """Runs by their share of the right class by pixels and by fc7, or their error by shift."""
    config = imagenette.get_config()
    config.num_epochs, config.model.fc_features = 60, (2048, 2048)
    runs = [
        {"precision_of_pixels": pixels, "precision_of_fc7": fc7, "test_images": 900,
         "gallery": 8000, "configuration": settings.own_fields(config),
         "off_center": [{"shift": 0, "top1_error": 0.3}, {"shift": 15, "top1_error": fc7},
                        {"shift": 32, "top1_error": 0.95}]}
        for pixels, fc7 in zip(theirs, ours, strict=True)
    ]  # fmt: skip
    table = {"image_size": 64, "conv_features": [48, 128], "neighbors": 6, "runs": runs}
    return "look_inside_imagenette", table


def _biases(theirs, ours):
    """Updates at which nets of biases 0, and of 1, leave the plateau."""
    starts = [
        {"pixels": pixels, "weights": weights, "bias": bias,
         "updates": {str(seed): one for seed, one in enumerate(of)}}
        for pixels in ("0 to 255", "divided by 57")
        for weights in ("original", "paper")
        for bias, of in ((1.0, ours), (0.0, theirs))
    ]  # fmt: skip
    return "plateau", {
        "data": "digits", "epochs_at_most": 40, "updates_an_epoch": 21, "left_at_a_loss_of": 2.0,
        "starts": starts,
    }  # fmt: skip


LOW, HIGH, ONE = [0.10, 0.11, 0.12], [0.20, 0.21, 0.22], ([0.2], [0.1])
LARGER = [(LOW, HIGH, "reproduced"), (HIGH, LOW, "not"), (LOW, LOW, "inside the spread"),
          (LOW, [*HIGH[:2], None], "nothing to compare"), (LOW, [], "nothing to compare"),
          (*ONE, "one run: against it")]  # fmt: skip
SMALLER = [(HIGH, LOW, "reproduced"), (LOW, HIGH, "not"), *LARGER[2:5], (*ONE, "one run: for it")]
SINGLE = [([0.2], [0.1], "one run: against it"), ([0.2], [0.3], "one run: for it"),
          ([0.2], [0.2], "inside the spread"), ([0.2], [None], "nothing to compare")]  # fmt: skip
MEAN_OF_NETS = [(HIGH, [0.1], "one run: for it"), (LOW, [0.2], "one run: against it"),
                (LOW, [0.11], "inside the spread")]  # fmt: skip
TIMES = [([12, 13], [2, 2], "reproduced"), ([12, 13], [10, 11], "partly"), ([2, 2], [3, 3], "not"),
         ([None], [None], "nothing to compare"), ([12], [2], "one run: for it")]  # fmt: skip
OF_ONE_NET = [(HIGH, LOW, "one run: for it"), (LOW, HIGH, "one run: against it"), *SMALLER[2:4]]
NEARER = [([0.2, 0.2], [0.5, 0.6], "reproduced"), ([0.2, 0.2], [0.5, 0.2], "not"),
          ([0.2], [0.5], "one run: for it")]  # fmt: skip
OFF = [([0, 0], [0.5, 0.59], "reproduced"), ([0, 0], [0.5, 0.61], "not"),
       ([0], [0.5], "one run: for it")]  # fmt: skip
CHANCES = [([], [0.01, 0.04], "reproduced"), ([], [0.04, 0.2], "partly"),
           ([], [0.0, 0.3, 0.2], "not"), ([], [0.0, None], "nothing to compare"),
           ([], [0.3], "one run: against it"), ([], [0.01], "one run: for it")]  # fmt: skip
FINDERS = {
    "ablation": (findings_of_ablations.ablation("no LRN"), _ablations, LARGER),
    "overfitting": (
        findings_of_ablations.ablation("no dropout", "overfitting"),
        _overfitting,
        LARGER,
    ),
    "training error": (
        findings_of_ablations.ablation("no weight decay", "training error"),
        _training,
        LARGER,
    ),
    "dropout": (findings_of_ablations.dropout_slows, _dropout, TIMES),
    "figure 1": (findings.figure1, _figure1, TIMES),
    "biases": (findings.biases, _biases, [TIMES[0], *TIMES[2:]]),
    "LRN": (findings.lrn_cifar(), _lrn, SMALLER),
    "pre-training": (findings.pre_training, _fine_tune, OF_ONE_NET),
    "ensemble": (findings.ensembles, _ensemble, MEAN_OF_NETS),
    "baseline": (findings.baseline("sift_fisher", "modes"), _baseline, SINGLE),
    "specialisation": (findings_inside.specialisation, _specialised, CHANCES),
    "retrieval": (findings_inside.retrieval, _inside, NEARER),
    "off the centre": (findings_inside.off_center, _inside, OFF),
}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A function that writes a result; the folder holds the log of our net."""
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    splits = ("validation", "test", "test_ten_views")
    log = [TEN | {"split": split, "epoch": 90.0} for split in splits]
    (tmp_path / "imagenette_224.jsonl").write_text("\n".join(map(json.dumps, log)))

    def write(name, table):
        (tmp_path / f"{name}.json").write_text(json.dumps({"result": table}))

    return write


@pytest.mark.parametrize(
    ("name", "theirs", "ours", "word"),
    [(name, *case) for name, (_, _, cases) in FINDERS.items() for case in cases],
)
def test_each_finder_judges(name, theirs, ours, word, results):
    find, make, _ = FINDERS[name]
    assert find() is None
    results(*make(theirs, ours))
    found = find()
    assert found.verdict == word
    *trainings, last = found.command.split(" && ")
    module, words = split(last.removeprefix("python "))
    for number, training in enumerate(trainings):  # of the runs that were looked into
        assert training == (
            f"python -m alexnet_jax.main --workdir=runs/inside_{number} --config=imagenette "
            "'--config.model.fc_features=(2048, 2048)' --config.num_epochs=60.0"
        )
    assert {word.removeprefix("--").partition("=")[0] for word in words} <= set(flags_of(module))


def test_what_the_fall_of_the_rate_brings_is_not_counted_for_or_against_dropout(results):
    """It comes after epoch 36, and the median of five epochs is down in the third."""
    results(*_dropout([34], [10]))
    assert "with dropout 35.92; without 11.92;" in findings_of_ablations.dropout_slows().ours
    results(*_dropout([35], [10]))
    assert "with dropout never; without 11.92;" in findings_of_ablations.dropout_slows().ours


def test_another_pair_of_nets_is_not_judged_for_that_of_the_claim(results):
    results(*_lrn(HIGH, LOW, net="18%"))
    assert findings.lrn_cifar()() is None


def test_nets_that_were_wrong_about_the_same_images_differ_by_a_narrower_interval(results):
    half = lambda: float(findings.lrn_cifar()().ours.split("± ")[1].split()[0])  # noqa: E731
    name, table = _lrn([0.10], [0.09])
    results(name, table)
    assert half() == pytest.approx(196 * ((0.10 * 0.90 + 0.09 * 0.91) / 2000) ** 0.5, abs=0.006)
    table["nets"]["conv-local"]["pairs"] = {"0": [30, 10]}
    results(name, table)
    assert half() == pytest.approx(196 * ((40 / 2000 - 0.01**2) / 2000) ** 0.5, abs=0.006)
    table = _ablations([0.20], [0.22])[1]
    table["variants"][1]["pairs"] = {"0": {"test_ten": [10, 50], "test_center": [0, 0]}}
    results("ablations_128", table)
    assert "+2.00 ± 0.75 points" in findings_of_ablations.ablation("no LRN")().ours


def test_of_two_tables_that_with_most_seeds_of_both_nets_is_judged(results):
    name, table = _ablations(LOW, HIGH[:1])
    results(name, table)
    results("ablations_64_width_0.5", _ablations(LOW[:2], LOW[:2])[1] | {"image_size": 64})
    found = findings_of_ablations.ablation("no LRN")()
    assert found.scale.endswith("test images, 2 seeds")
    assert "; with 128 pixels, 60 epochs, 1 seed: +" in found.ours


def test_a_net_that_never_learned_is_told_and_not_judged(results, tmp_path):
    results("ablations_128", _ablations(LOW[:1], HIGH[:1])[1])
    _, table = _ablations(LOW, HIGH)
    table["variants"][1]["left_the_plateau"] = [None, None, None]
    results("ablations_64_width_0.5", table | {"image_size": 64, "width": 0.5})
    found = findings_of_ablations.ablation("no LRN")()
    assert (found.scale[-6:], found.picture) == ("1 seed", "ablations_128.png")
    told = "; with 64 pixels, 0.5 of the width, 60 epochs, {} of 3 seeds of no LRN never left the "
    told += "plateau and are not counted"
    assert found.ours.endswith(told.format(3))
    (tmp_path / "ablations_128.json").unlink()
    table["variants"][1]["train"]["values"] = [0.9] * 3
    results("ablations_64_width_0.5", table | {"image_size": 64, "width": 0.5})
    found = findings_of_ablations.ablation("no LRN")()
    assert found.verdict == "nothing to compare" and "learning" not in found.ours
    table["variants"][1]["train"]["values"] = [0.0] * 3
    table["variants"][1]["left_the_plateau"] = [2, 3, None]
    results("ablations_64_width_0.5", table | {"image_size": 64, "width": 0.5})
    found = findings_of_ablations.ablation("no LRN")()
    assert found.scale.endswith("2 seeds") and found.ours.endswith(told.format(1))
    table["variants"][0]["left_the_plateau"] = [None, 2, 3]
    results("ablations_64_width_0.5", table | {"image_size": 64, "width": 0.5})
    assert "1 of 3 seeds of paper never" in findings_of_ablations.ablation("no LRN")().ours


def test_nets_that_were_still_learning_say_which_learns_sooner(results):
    name, table = _ablations(LOW, HIGH)
    paper, other = table["variants"]
    for row, train, left in ((paper, 0.09, [3, 9, 4]), (other, 0.02, [7, None, 8])):
        row["train"]["values"], row["test_center"]["values"] = [train, 0.5, train], [0.18] * 3
        row["left_the_plateau"] = left
    results(name, table)
    found = findings_of_ablations.ablation("no LRN")()
    assert found.verdict == "reproduced" and "learning" not in found.ours
    paper["train"]["values"] = [0.09, 0.0, 0.092]  # the second seed never learned without LRN
    results(name, table)
    found = findings_of_ablations.ablation("no LRN")()
    assert found.verdict == "cut short: for it"
    told = "(training error 9.1 and 2.0%, off the plateau in epoch 3.5 and 7.5)"
    assert f", still learning when they ended {told}; with 128 pixels" in found.ours
    short = table | {"image_size": 64, "width": 0.5, "epochs": 20}
    results("ablations_64_width_0.5_20_epochs", short)
    paper["train"]["values"] = [0.09] * 3
    results(name, table)
    found = findings_of_ablations.ablation("no LRN")()
    assert found.verdict == "reproduced"  # by the longer trainings, beside which the others stand
    assert f", still learning when they ended {told}" in found.ours.partition("20 epochs")[2]
    assert "learning" not in found.ours.partition("20 epochs")[0]


def test_a_net_from_scratch_that_was_still_learning_is_no_proof_of_pre_training(results):
    name, table = _fine_tune(HIGH, LOW)
    table["training_top1_error"]["from scratch"] = [0.01, 0.2, 0.2]
    results(name, table)
    found = findings.pre_training()
    assert found.verdict == "cut short: for it"
    assert "learning when they ended (training error 13.7 and 1.0%); by seed" in found.ours


def test_cifar_nets_that_were_still_learning_say_which_learns_sooner(results):
    name, table = _lrn(HIGH, LOW)
    results(name, table)
    assert findings.lrn_cifar()().verdict == "reproduced"
    table["runs"][-1]["train"] = {"top1_error": 0.11}  # of three with norms
    results(name, table)
    found = findings.lrn_cifar()()
    assert found.verdict == "cut short: for it"
    assert found.ours.endswith("when they ended (training error 10.0 and 10.3%)")


def test_the_colours_of_the_longest_training_are_judged_and_others_stand_beside(results):
    results(*_specialised([], [0.3, 0.3]))
    name, longer = _specialised([], [0.01, 0.02, 0.03])
    results(f"{name}_60_epochs", longer | {"epochs": 60})
    found = findings_inside.specialisation()
    assert (found.verdict, found.picture) == ("reproduced", f"{name}_60_epochs.png")
    assert _flags(found.command, "variant") == ["paper"]
    assert (
        "; with 64 pixels, 0.5 of the width, 12 epochs, 2 seeds: 0.10 and 0.10 (30.0%)"
        in found.ours
    )
    assert found.ours.count("(30.0%)") == 2


def test_the_colours_of_ablations_stand_beside_those_of_the_specialisation(results):
    results(*_specialised([], [0.3]))
    assert "pixels" not in findings_inside.specialisation().ours
    name, table = _ablations([0.2], [0.3])
    for row, shares in zip(table["variants"], ([0.56, 0.23], [0.4, 0.3]), strict=True):
        row["color_shares"] = [shares]
    results(name, table)
    told = "; with 128 pixels, 60 epochs, 1 seed: 0.23 and 0.56; no LRN 0.30 and 0.40"
    assert findings_inside.specialisation().ours.endswith(told)
    table["variants"][0] |= {"seeds": [0, 1], "color_shares": [[0.56, 0.23], [0.1, 0.2]]}
    results(name, table)
    told = told.replace("1 seed: 0.23 and 0.56", "2 seeds: 0.23 and 0.56, 0.10 and 0.20")
    assert findings_inside.specialisation().ours.endswith(told)
    table["variants"][0]["color_shares"] = [[None, None]] * 2
    results(name, table)
    assert "pixels" not in findings_inside.specialisation().ours


def test_of_the_runs_that_are_judged_by_their_colours_none_is_told_twice(results):
    results("specialisation_64_60_epochs", _specialised([], [0.3, 0.4])[1] | {"epochs": 60})
    _, table = _ablations([0.2] * 3, [0.3])
    table["variants"][0]["color_shares"] = [[0.1, 0.2], [0.3, 0.4], [0.6, 0.5]]
    results("ablations_64_width_0.5", table | {"image_size": 64, "width": 0.5})
    told = "(40.0%); with 64 pixels, 0.5 of the width, 60 epochs, 1 seed more: 0.50 and 0.60"
    assert findings_inside.specialisation().ours.endswith(told)


def test_a_baseline_says_where_a_weaker_penalty_may_be_better(results):
    name, table = _baseline([0.2], [0.3])
    find = findings.baseline("sift_fisher", "modes")
    table["kinds"]["SIFT"] = TEN | {"C": 100.0}
    results(name, table)
    assert find().ours.endswith("; of SIFT the weakest penalty tried was the best")
    results(name, table | {"penalties": [1.0, 100.0, 1000.0]})
    assert find().ours.endswith("of SIFT alone 20.00%")


def test_a_damaged_result_is_named(results, tmp_path):
    (tmp_path / "ablations_128.json").write_text('{"result": x}')
    with pytest.raises(ValueError, match=r"ablations_128\.json is no JSON"):
        ledger.lines()
    (tmp_path / "ablations_128.json").unlink()
    results("lrn_cifar", {"num_epochs": 1})
    with pytest.raises(ValueError, match=r"claim 'LRN takes .*damaged .it lacks 'nets'"):
        ledger.lines()


def _flags(command, name):
    return [w.partition("=")[2] for w in shlex.split(command) if w.startswith(f"--{name}=")]


def test_a_command_trains_what_is_compared_and_no_more(results):
    name, table = _ablations([*LOW, 0.2, 0.2], HIGH)
    table["variants"].append(_variant("no colour", train=[0.1] * 5))
    results(name, table | {"width": 0.5})
    command = findings_of_ablations.ablation("no LRN")().command
    assert _flags(command, "variant") == ["paper", "no LRN"]
    assert _flags(command, "seed") == ["0", "1", "2"]
    assert [_flags(command, flag) for flag in ("image_size", "num_epochs", "width")] == [
        ["128"],
        ["60"],
        ["0.5"],
    ]


def test_nets_of_figure_1_that_were_not_tried_alike_have_commands_of_their_own(results):
    name, table = _figure1([12], [2])
    results(name, table)
    assert "&&" not in findings.figure1().command
    of_tanh = [run for run in table["runs"] if run["activation"] == "tanh"]
    of_tanh[1]["rate"] = 0.008
    table["rates_tried"]["tanh"] = [0.001, 0.008]
    results(name, table)
    found = findings.figure1()
    relu, tanh = found.command.split(" && ")
    assert [_flags(one, "activation") for one in (relu, tanh)] == [["relu"], ["tanh"]]
    assert _flags(relu, "rate") == ["0.001", "0.002"]
    assert _flags(tanh, "rate") == ["0.001", "0.008"]
    assert "the rates tried are not the same" in found.ours


def test_seeds_that_never_reach_the_target_are_told(results):
    results(*_figure1([12, None, None], [2, 2, 2]))
    assert findings.figure1().ours.endswith("without seeds that never reach it: 1, 2")
    results(*_figure1([12], [2]))
    assert "never" not in findings.figure1().ours
