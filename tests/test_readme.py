"""The README and the table of figures: what they say is what the code does and the data hold."""

import itertools
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from alexnet_jax import alexnet
from alexnet_jax.configs import digits
from alexnet_jax.models.layer_table import format_table, layer_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MEASURED = (ROOT / "docs" / "measured.md").read_text()
RESULTS = ROOT / "experiments" / "results"


def _result(name: str) -> dict:
    """Of a result file; older ones are the result alone."""
    content = json.loads((RESULTS / f"{name}.json").read_text())
    return content.get("result", content)


def _row(start: str) -> str:
    return next(line for line in (README + MEASURED).splitlines() if line.startswith(f"| {start}"))


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def test_figures_of_the_imagenette_run_are_those_of_its_log():
    lines = (RESULTS / "imagenette_224.jsonl").read_text().splitlines()
    error = {entry["split"]: entry["top1_error"] for entry in map(json.loads, lines)}
    figures = f"{_percent(error['test'])} / {_percent(error['test_ten_views'])}%"
    assert figures in _row("Imagenette, full network, 224 pixels")


def test_figures_of_watching_are_those_of_the_result():
    result = _result("vitals_cpu")
    text = " ".join((ROOT / "docs" / "health.md").read_text().split())
    assert f"{100 * result['more_time_by_interval']['100']:.1f}% of its time" in text
    ratios = result["median_of_ratios"]
    assert f"takes {ratios['due']:.2f} times as long, the others {ratios['not due']:.2f}" in text


def test_figures_of_the_loop_are_those_of_the_result():
    result = _result("loop_cpu")

    def turns(name, part):
        (least, *_, most), middle = result[name][f"{part}_of_each_turn"], result[name][part]
        return f"{middle:.1%} ({least * 100:.1f} to {most:.1%})"

    assert f"| {turns('paper', 'no_step_runs')} |" in _row("share of the training loop's time")
    row = _row("the same of the digits recipe, whose steps")
    assert f"whose steps take {result['digits']['milliseconds']['bare']:.0f} ms" in row
    assert f"| {turns('digits', 'no_step_runs')} |" in row
    row = _row("how much longer the loop takes")
    assert f"| {turns('paper', 'more')}; {turns('digits', 'more')} |" in row


def test_figures_of_the_centre_crops_measured_again_are_those_of_the_result():
    ratios = {
        row["precision"]: row["ratio"]
        for row in _result("step_cpu_intel_center")["ratios"]
        if "kept" not in row["mode"]
    }
    figures = f"{ratios['float32']:.2f}x; {ratios['bfloat16']:.2f}x"
    assert figures in _row("on the same Intel Xeon, since few images pass")


def test_figures_of_another_version_are_those_of_the_result():
    result = _result("versions_cpu")
    ours, theirs = (result["median_seconds"][name] for name in ("this", "other"))
    row = _row("`make train` against the version of")
    assert f"({result['other'][:7]})" in row
    assert f"| {result['times_as_fast']:.2f}x ({ours:.0f} s against {theirs:.0f} s) |" in row


def test_figures_of_the_towers_colours_are_those_of_the_result():
    nets = _result("specialisation_64_60_epochs")["nets"]
    row = _row("those ten nets")
    pairs = [
        pair
        for net in nets.values()
        for pair in zip(net["higher"]["values"], net["lower"]["values"], strict=True)
    ]
    high, low = max(pairs, key=lambda pair: pair[0] - pair[1])
    assert len(pairs) == 10 and f"| {high:.2f} and {low:.2f} |" in row


def test_figures_of_the_sweep_are_those_of_the_result():
    rows = _result("sweep_cpu")
    assert [(row["settings"], row["updates"]) for row in rows] == [(24, 2), (24, 10), (24, 50)]
    figures = " / ".join(f"{row['times_as_fast']:.1f}x" for row in rows)
    assert figures in _row("24 settings of the smallest CIFAR-10 net, 2 / 10 / 50 updates each")


def test_figures_of_the_ensemble_are_those_of_the_result():
    result = _result("ensemble")
    alone, *means = (row["top1_error"] for row in result["views"]["ten"]["means"])
    assert (result["image_size"], result["width"], result["epochs"]) == (64, 0.5, 60)
    of_two, _, _, of_five = (_percent(np.mean(errors)) for errors in means)
    figures = f"{_percent(min(alone))} to {_percent(max(alone))} / {of_two} / {of_five}%"
    assert f"| {figures} |" in _row("the paper's net of five seeds")


def test_figures_of_the_baselines_are_those_of_the_results():
    names = ("sift_fisher", "sparse_coding")
    errors = [_percent(_result(f"baseline_{name}")["top1_error"]) for name in names]
    assert f"{' / '.join(errors)}%" in _row("the same test, what the paper beat")


def test_what_imagenet_takes_is_computed_from_what_was_measured():
    lines = (RESULTS / "imagenette_224.jsonl").read_text().splitlines()
    rates = [row["images_per_second"] for row in map(json.loads, lines) if row["split"] == "train"]
    rate = np.median(rates)
    hours = 1_281_167 * 90 / rate / 3600
    assert f"{hours:.1f} hours on one H200, {hours / 8:.1f} on eight" in _row("train, 90 epochs")
    assert f"at the {rate:,.0f} images/s" in README
    prepared = _result("prepare_speed")["images_per_second"]["prepare raw"]
    assert f"prepared at {prepared:.0f} a second" in README
    assert f"{1_331_167 / prepared / 3600:.1f} hours of one core" in _row("prepare |")
    assert f"{rate * 256 * 256 * 3 / 1e9:.1f} GB/s" in README


def test_figures_of_the_ablations_are_those_of_the_result():
    result = _result("ablations_128")
    rows = {row["variant"]: row for row in result["variants"]}
    named = ("paper", "no LRN", "plain pooling", "one-GPU net", "no dropout", "no crops, no flips")
    errors = [_percent(rows[name]["test_ten"]["mean"]) for name in (*named, "no colour")]
    assert f"{' / '.join(errors)}%" in _row("Imagenette, 128 pixels")
    shares = [
        " / ".join(f"{share:.2f}" for share in rows[name]["color_shares"][0])
        for name in ("paper", "no LRN")
    ]
    assert ", ".join(shares) in _row("the same nets: share of colour")
    small = {
        row["variant"]: row["test_ten"]
        for row in _result("ablations_64_width_0.5_20_epochs")["variants"]
    }
    named = ("paper", "no LRN", "towers apart", "exchange everywhere", "one tower")
    errors = [
        f"{_percent(small[name]['mean'])} ± {_percent(small[name]['deviation'])}" for name in named
    ]
    assert f"{' / '.join(errors)}%" in _row("Imagenette, 64 pixels, half the width")
    others = ("biases 0.1", "biases 0", "0.01 everywhere", "ten fixed views")
    without = ("exchange everywhere, no LRN", "one tower, no LRN")
    errors = [
        f"{_percent(small[name]['mean'])} ± {_percent(small[name]['deviation'])}"
        for name in others + without
    ]
    assert f"{' / '.join(errors)}%" in _row("those nets after 20 epochs")
    longer = {
        row["variant"]: row["test_ten"] for row in _result("ablations_64_width_0.5")["variants"]
    }
    errors = [
        f"{_percent(longer[name]['mean'])} ± {_percent(longer[name]['deviation'])}"
        for name in (
            "paper",
            "no LRN",
            "one-GPU net",
            "plain pooling",
            "no conv3",
            "no conv4",
            "no colour",
        )
    ]
    assert f"{' / '.join(errors)}%" in _row("those nets after 60 epochs: the paper's net")
    paper, _, apart, everywhere, _ = (100 * small[name]["mean"] for name in named)
    assert (round(apart - paper), round(paper - everywhere)) == (10, 6)
    text = " ".join((ROOT / "docs" / "parallel.md").read_text().split())
    assert "wrong ten points more often" in text and "always exchange six points less" in text


def test_figures_of_the_meshes_and_calls_are_those_of_the_results():
    mesh = _result("mesh_overhead_gpu")
    milliseconds = 1e3 * mesh["median_seconds"]["no mesh"]
    assert f"{mesh['median_of_ratios']:.3f} ({milliseconds:.1f} ms" in _row(
        "mesh of 1x1 against no mesh, batch"
    )
    assert f"| {_result('mesh_overhead_cpu')['median_of_ratios']:.3f} |" in _row(
        "mesh of 1x1 against no mesh (CPU"
    )
    calls = _result("steps_per_call_gpu")
    assert f"{calls['times_as_fast_in_one_call']['median']:.1f}x" in _row(
        "digits recipe, 21 updates"
    )


def _times_pytorch(result, measure, kept):
    """Ours over PyTorch's best mode by precision and batch size, as the table writes it."""
    found = {
        (row["precision"], row["batch_size"]): f"{row['ours'] / row['theirs']:.2f}x"
        for row in result["ratios"]
        if row["measure"] == measure and row["mode"].endswith("kept") == kept
    }
    sizes = sorted({size for _, size in found})
    return "; ".join(
        ", ".join(found[precision, size] for size in sizes)
        for precision in ("float32", "bfloat16")
        if (precision, sizes[0]) in found
    )


def test_figures_of_the_step_on_the_intel_are_those_of_its_result():
    result = _result("step_cpu_intel")
    rows = ("all of these on an Intel Xeon", "the same where PyTorch's process keeps freed")
    for kept, row in enumerate(rows):
        texts = (_times_pytorch(result, measure, kept) for measure in ("train", "center", "ten"))
        assert f"| {'; '.join(texts)} |" in _row(row)


def test_figures_of_the_step_with_avx2_alone_are_those_of_its_results():
    training, whole = _result("step_cpu_amd_avx2_train"), _result("step_cpu_amd_avx2")
    rows = ("training on an AMD EPYC with AVX2", "the same where PyTorch's process keeps its")
    for kept, row in enumerate(rows):
        assert f"| {_times_pytorch(training, 'train', kept)} |" in _row(row)
    large = {
        row["mode"].endswith("kept"): f"{row['ours'] / row['theirs']:.2f}x"
        for row in _result("step_cpu_amd_avx2_512")["ratios"]
        if row["batch_size"] == 512
    }
    assert f"| {large[False]}; {large[True]} |" in _row("at batch 512 there")
    texts = [_times_pytorch(whole, of, kept) for kept in (False, True) for of in ("center", "ten")]
    assert f"| {'; '.join(texts)} |" in _row("evaluation there at batch 32, float32")


def test_figures_of_bfloat16_without_instructions_for_it_are_those_of_the_result():
    rates = {
        (row["measure"], row["batch_size"], row["name"]): row["images_per_second"]
        for row in _result("step_cpu_amd_avx2_bfloat16")["rows"]
    }
    *train, center, ten = (
        f"{rates[measure, size, 'ours bfloat16'] / rates[measure, size, 'ours float32']:.2f}"
        for measure, size in (("train", 32), ("train", 128), ("center", 32), ("ten", 32))
    )
    assert f"| {', '.join(train)}; {center}; {ten} |" in _row("there, without instructions for")


def _memory(result):
    """Most memory of training 128 images, ours / that of PyTorch's best mode, by precision."""
    asked = ("train", 128)
    peak = {
        row["name"]: row["peak_bytes"] / 1e9
        for row in result["rows"]
        if (row["measure"], row["batch_size"]) == asked
    }
    modes = {
        row["precision"]: f"PyTorch {row['mode']} {row['precision']}"
        for row in result["ratios"]
        if (row["measure"], row["batch_size"]) == asked and "kept" not in row["mode"]
    }
    return ", ".join(
        f"{peak[f'ours {precision}']:.2f} / {peak[mode]:.2f}" for precision, mode in modes.items()
    )


def test_the_memory_that_is_explained_is_the_results():
    at = ("train", 128, "ours bfloat16")
    intel, amd, trimmed = (
        {(row["measure"], row["batch_size"], row["name"]): row for row in _result(name)["rows"]}
        for name in ("step_cpu_intel", "step_cpu", "step_cpu_amd_memory")
    )
    more = intel[at]["peak_bytes"] - intel[*at[:2], "ours float32"]["peak_bytes"]
    found = [intel[at]["peak_bytes"], more, intel[at]["temporary_bytes"]]
    found += [amd[at]["peak_bytes"], trimmed[at]["peak_bytes"]]
    text = " ".join(
        (ROOT / "docs" / "performance.md").read_text().partition("So, presum")[2].split()
    )
    assert re.findall(r"([\d.]+) GB", text)[:5] == [f"{size / 1e9:.2f}" for size in found]
    assert intel[at]["temporary_bytes"] == pytest.approx(amd[at]["temporary_bytes"], rel=0.01)


def test_figures_of_the_step_are_those_of_the_result():
    result = _result("step_cpu")
    text = partial(_times_pytorch, result)
    second = partial(_times_pytorch, _result("step_cpu_amd_memory"), "train")
    of_second = second(kept=False).replace("; ", ", ")
    row = f"| {of_second}; {second(kept=True).replace('; ', ', ')} |"
    assert row in _row("all of PyTorch's modes at batch 128 in that race")
    first = text("train", kept=False).rpartition(", ")[0]  # the last lacks the faster mode
    assert f"{first}, {of_second.partition(', ')[2]}" in _row("whole training step")
    batch_128 = [
        ", ".join(
            _times_pytorch(of, "train", kept).partition(";")[0].partition(", ")[2]
            for of in (result, _result("step_cpu_intel"), _result("step_cpu_amd_avx2_train"))
        )
        for kept in (False, True)
    ]
    assert f"[{'; '.join(batch_128)}]" in _row("training step on CPUs")
    assert text("train", kept=True) in _row("the same where PyTorch's process, too")
    for kept, start in (
        (False, "evaluation at batch 32 in the same race"),
        (True, "the same eval"),
    ):
        texts = (text("center", kept=kept), text("ten", kept=kept))
        assert f"| {'; '.join(texts)} |" in _row(start)
    memory = "; ".join(
        map(_memory, (result, _result("step_cpu_intel"), _result("step_cpu_amd_avx2_train")))
    )
    assert f"| {memory} GB |" in _row("most memory of the training process")
    memory = _memory(_result("step_cpu_amd_memory"))
    assert f"| {memory} GB |" in _row("the same on the AMD with AVX-512, since what compiling")
    for name, row in (
        ("", "from the start of a process"),
        ("_amd", "the same on the AMD with AVX-512 |"),
    ):
        start = _result(f"start_cpu{name}")
        seconds = " / ".join(f"{start[kind]['median']:.1f}" for kind in ("cold", "warm"))
        assert f"| {seconds} s |" in _row(row)


def test_what_falls_short_is_as_the_results_have_it():
    rows = (ROOT / "docs" / "performance.md").read_text().partition("## What falls short")[2]
    lines = iter(line for line in rows.splitlines() if line.startswith("| ") and "---" not in line)
    amd, intel, crops, avx2, evaluated = (
        _result(f"step_cpu{name}")
        for name in ("", "_intel", "_intel_center", "_amd_avx2_train", "_amd_avx2")
    )
    rates = lambda of: {  # noqa: E731
        (row["measure"], row["batch_size"], row["name"]): row for row in of["rows"]
    }

    def times(of, measure, precision, kept):
        """Ours over PyTorch's best mode by batch size."""
        return ", ".join(
            f"{row['ours'] / row['theirs']:.2f}"
            for row in of["ratios"]
            if (row["measure"], row["precision"]) == (measure, precision)
            and row["mode"].endswith("kept") == kept
        )

    def evaluation(of, ten, precision, kept):
        return f"{times(of, 'center', precision, kept)}, {times(ten, 'ten', precision, kept)}"

    def of_float32(of):
        return ", ".join(
            f"{rates(of)['train', size, 'ours bfloat16']['images_per_second'] / row:.2f}"
            for size in (32, 128)
            for row in [rates(of)["train", size, "ours float32"]["images_per_second"]]
        )

    def of_product(of):
        bound = of["ceilings"]["float32 TFLOP/s"]
        found = (rates(of)["train", size, "ours float32"]["tflops"] for size in (32, 128))
        return ", ".join(f"{one / bound:.2f}" for one in found)

    def more_memory(of):
        pairs = (pair.split(" / ") for pair in _memory(of).split(", "))
        return " and ".join(f"{float(ours) - float(theirs):.2f}" for ours, theirs in pairs)

    loop, sweep = _result("loop_cpu"), _result("sweep_cpu")
    assert next(lines).startswith("| wanted")
    assert next(lines).endswith(f": {times(intel, 'train', 'float32', True)} |")
    all_modes, kept = (
        times(of, "train", "bfloat16", kept)
        for of, kept in ((_result("step_cpu_amd_memory"), False), (amd, True))
    )
    assert next(lines).endswith(f"at batch 128: {all_modes}; with memory kept: {kept} |")
    row, of_amd = next(lines), evaluation(amd, amd, "bfloat16", False)
    of_intel = evaluation(crops, intel, "float32", False)
    assert row.endswith(f": {of_intel}; bfloat16 on the AMD: {of_amd} |")
    machines = ((crops, intel), (amd, amd), (evaluated, evaluated))
    kept = "; ".join(evaluation(*pair, "float32", True) for pair in machines)
    of_amd = evaluation(amd, amd, "bfloat16", True)
    assert next(lines).endswith(f": {kept}; bfloat16 on the AMD: {of_amd} |")
    assert next(lines).endswith(f": {of_float32(intel)} times (the AMD: {of_float32(amd)}) |")
    row = next(lines)
    assert f"the Intel: {of_product(intel)}; where" in row
    assert row.endswith(f"alone: {of_product(amd)}; {of_product(avx2)} |")
    assert f"by {more_memory(intel)} GB on the Intel" in next(lines)
    now = more_memory(_result("step_cpu_amd_memory")).split(" and ")
    assert all(one.startswith("-") for one in now)
    row, small, whole = next(lines), loop["digits"], loop["paper"]
    assert f"runs in {small['no_step_runs']:.1%} of the digits'" in row
    assert f"net: {whole['no_step_runs']:.1%})" in row
    assert f"make them {100 * small['more']:.1f} and {whole['more']:.1%} longer" in row
    intel, amd = (_result(f"start_cpu{name}")["cold"]["median"] for name in ("", "_amd"))
    assert f"| {intel:.1f} s on the Intel (the AMD with AVX-512: {amd:.1f} s) |" in next(lines)
    slow = " and ".join(f"{row['times_as_fast']:.1f}" for row in sweep[1:])
    assert f"| {slow} times where" in next(lines)


def test_every_operation_far_under_its_bound_has_its_reason_written():
    text = " ".join((ROOT / "docs" / "performance.md").read_text().split())
    result = _result("operations_cpu")
    shares = {row["name"]: row["bound both"] / row["ours both"] for row in result["milliseconds"]}
    low = {name: share for name, share in shares.items() if share < 0.25}
    assert [*low] == ["bias, ReLU, LRN, pool 1", "bias, ReLU, LRN, pool 2"]
    first, second = (f"{100 * share:.0f}" for share in low.values())
    assert f"after conv1 and after conv2, at {first} and {second}% with their gradients" in text
    row = next(row for row in result["milliseconds"] if row["name"] in low)
    map_ms = result["batch_size"] * 55 * 55 * 96 * 4 / result["copy GB/s"] / 1e6
    forward, backward = row["ours forward"], row["ours both"] - row["ours forward"]
    assert (
        f"the map {forward / map_ms:.0f} times, the backward pass {backward / map_ms:.0f}" in text
    )
    times = [
        row["PyTorch both"] / row["ours both"]
        for row in result["milliseconds"]
        if row["name"] in low
    ]
    assert min(times) > 1.8 and max(times) < 3.2, times  # "two to three times as long"


def test_features_are_as_measured():
    result = _result("features_cpu")
    of_one, alone = result["ratio to one output and the writing"], result["ratio"]
    (most,) = set(result["peak memory in MB, by images"].values())
    assert f"| {of_one:.2f}x / {alone:.2f}x; {most / 1000:.2f} GB |" in _row("every layer of 1,000")


def test_figures_of_the_digits_are_those_of_the_reference():
    runs = json.loads((RESULTS / "reference_digits.json").read_text())["result"]["runs"]
    errors = [run["log"]["test top1_error"] for run in runs]
    wrong = [round(219 * error) for error in errors]
    row = _row("the digits recipe, eight seeds")
    assert len(runs) == 8
    assert f"{min(wrong)} to {max(wrong)} ({_percent(np.mean(errors))}%)" in row


def test_figures_of_reading_are_those_of_the_result():
    claims = _result("read_speed")["claims"]

    def text(name):
        ratios = (claims[f"{cores}: {name}"]["ratio"] for cores in ("one core", "2 cores"))
        return " / ".join(f"{ratio:.1f}x" for ratio in ratios)

    originals, prepared = (
        f"PyTorch DataLoader, {what}" for what in ("originals", "the same raw set")
    )
    assert f"| {text(f'raw set / {originals}')} |" in _row("reading a prepared raw set")
    assert f"| {text(f'JPEG set / {originals}')} |" in _row("the same, prepared as JPEG")
    assert f"| {text(f'raw set / {prepared}')} |" in _row("the raw set against PyTorch's loader")
    assert f"| {text('raw set / ArrayRecord alone, shuffled')} |" in _row(
        "the raw set against ArrayRecord's"
    )

    step, (least, most) = (claims["step fed / step alone"][name] for name in ("ratio", "rounds"))
    assert f"| {step:.2f} ({least:.2f} to {most:.2f}) |" in _row("time of a step fed by")


def test_figures_of_preparing_are_those_of_the_result():
    result = _result("prepare_speed")
    ratios = result["ratio"], result["all_cores"]["ratio"]
    one, all_cores = (
        " / ".join(f"{100 * share:.0f}%" for share in shares)
        for shares in ([ratios[0][name]["wall"] for name in ("raw", "jpeg")], ratios[1].values())
    )
    assert f"| {one} |" in _row("speed of preparing")
    assert f"| {all_cores} |" in _row("the same, a whole preparation")


def test_figures_of_retrieval_are_those_of_the_results():
    shares = _result("retrieval_speed_cpu")["fraction_of_matmul"]
    host, device = (shares[f"search_{name}"]["median"] for name in ("from_host", "on_device"))
    assert f"| {host:.2f} from host, {device:.2f} on device |" in _row("nearest-neighbour search")


def test_figures_of_the_learning_rates_are_those_of_the_result():
    errors: dict[float, list[float]] = {}
    for run in _result("learning_rates"):
        errors.setdefault(run["learning_rate"], []).append(100 * run["validation"]["top1_error"])
    assert list(errors) == [0.002, 0.005, 0.01, 0.02, 0.05]
    assert min(errors[0.002] + errors[0.05]) > 85
    texts = (
        f"{min(ones):.1f} to {max(ones):.1f}% at"
        for ones in (errors[0.005], errors[0.01] + errors[0.02])
    )
    row = _row("five rates, three seeds")
    assert all(text in row for text in texts)


def test_figures_of_the_plateau_are_those_of_the_result():
    result = _result("plateau")
    usual, *others = (
        [
            [*row["updates"].values()]
            for row in result["starts"]
            if (row["pixels"], row["weights"]) == start
        ]
        for start in itertools.product(("0 to 255", "divided by 57"), ("original", "paper"))
    )
    figures = " / ".join(f"{min(updates)} to {max(updates)}" for updates in usual)
    most = result["epochs_at_most"] * result["updates_an_epoch"]
    row = _row("digits at half the width, three seeds: updates")
    assert f"| {figures}; not within {most} with deviations of 0.01 everywhere, nor" in row
    assert others == [[[None] * 3] * 3] * 3


def test_figures_of_what_is_nearest_are_those_of_the_result():
    (run,) = _result("look_inside_imagenette")["runs"]
    fc7, pixels = (100 * run[f"precision_of_{name}"] for name in ("fc7", "pixels"))
    assert f"| {fc7:.1f}% / {pixels:.1f}% |" in _row("Imagenette, half width, 64 pixels: six")


def test_figures_of_the_digits_recipe_are_those_of_the_result():
    shipped, longer = _result("digits_recipes")["recipes"][:2]
    text = " ".join(digits.__doc__.split())
    for recipe in (shipped, longer):
        *first, last = (f"{100 * run['validation']:.1f}" for run in recipe["runs"])
        assert f" at {', '.join(first)} and {last}% " in text
        assert f" within {max(run['seconds'] for run in recipe['runs']):.0f}" in text
    tested = ", ".join(f"{100 * run['test']:.1f}" for run in shipped["runs"])
    assert f"(seeds 0, 1, 2; test {tested}%)" in text


def test_seconds_of_the_digits_command_are_those_of_the_result():
    seconds = [run["seconds"] for run in _result("digits_recipes")["shipped_command"]]
    assert f"| {min(seconds):.0f} to {max(seconds):.0f} s |" in _row("the same, three seeds: sec")


def test_figures_of_fine_tuning_are_those_of_the_result_seed_by_seed():
    result = _result("fine_tune")
    errors = result["test_top1_error_after_each_third"]
    pairs = zip(errors["from scratch"], errors["fine-tuned"], strict=True)
    text = "; ".join(f"{100 * a[-1]:.1f} → {100 * b[-1]:.1f}%" for a, b in pairs)
    assert text in _row("Imagenette, 5 new classes")


def test_layer_table_is_the_commands():
    assert format_table(layer_table(alexnet("paper"))) in README


def test_snippet_runs_as_it_stands():
    snippet = re.search(r"```python\n(import jax\n.*?)```", README, re.DOTALL).group(1)
    generator = np.random.default_rng(0)
    names = {
        "batch": {
            "image": generator.integers(0, 256, (2, 256, 256, 3), dtype=np.uint8),
            "label": np.array([3, 7], np.int32),
        }
    }
    exec(snippet, names)
    assert names["train_step"]._cache_size() == 1
    assert np.isfinite(names["metrics"]["loss"])
    assert names["sums"]["count"] == 2
    assert names["state"].step == 1
    assert sum(leaf.size for leaf in names["state"].params["fc8"].values()) == 40970
