"""Traps: where the paper, the authors' code and Caffe differ, what we chose, and what pins it."""

from typing import NamedTuple


class Trap(NamedTuple):
    """One of them.

    Fields:
      trap: what differs, or goes wrong unseen.
      choice: what is done here, and how to have it otherwise.
      code: "file:name" of where it is decided.
      test: "file::test" that fails if it were decided otherwise; empty where there is none.
      effect: what it changes, measured or computed.
    """

    trap: str
    choice: str
    code: str
    test: str
    effect: str = ""


TRAPS = (
    Trap(
        "A crop of 224 does not divide: (224 - 11) / 4 is no whole number. The paper's counts want "
        "55, the usual valid rule gives 54, Caffe crops 227.",
        'As the authors\' code: the last window may reach past the image; `geometry` "valid224", '
        '"caffe227"',
        "alexnet_jax/models/alexnet.py:GEOMETRIES",
        "tests/models/test_alexnet.py::test_sizes_are_the_published_ones",
        "fc6 reads 6x6x256 or 5x5x256: 60.97 or 49.4 million parameters",
    ),
    Trap(
        "`SAME` padding, the easy way to 55, gives 56 and then poolings of 28, 14 and 7.",
        "Explicit padding (0, 3) of conv1, valid poolings",
        "alexnet_jax/models/alexnet.py:AlexNet",
        "tests/models/test_alexnet.py::test_geometry_holds_for_any_image",
        "fc6 would read 7x7x256: 13.6 million parameters more",
    ),
    Trap(
        "The paper's caption counts 253,440 neurons in conv1; 55 x 55 x 96 is 290,400.",
        "The product: 659,272 neurons in all (the paper says 650,000)",
        "alexnet_jax/models/layer_table.py:layer_table",
        "tests/reference/test_alexnet_numpy.py::test_totals_equal_published_counts",
        "36,960 neurons",
    ),
    Trap(
        "LRN's α: the paper sums α a²; the authors' parser and Caffe divide α by n first.",
        "As printed; `lrn_alpha_over_n` is True in the presets original, caffe and caffenet",
        "alexnet_jax/models/alexnet.py:AlexNet",
        "tests/test_ops.py::test_local_response_norm_equals_figures_of_paper_and_codes",
        "a factor of 5 on α",
    ),
    Trap(
        "LRN's k: 2 in the paper and in the authors' code, 1 in Caffe and in most libraries.",
        "2; 1 in the presets caffe and caffenet",
        "alexnet_jax/models/presets.py:PRESETS",
        "tests/test_ops.py::test_local_response_norm_equals_figures_of_paper_and_codes",
        "maps are 1.68 times as large with k = 1",
    ),
    Trap(
        "LRN's window: each GPU normalised over its own maps; Caffe lets windows cross the border "
        "between the towers.",
        '`lrn_scope` "tower"; "all" in the presets caffe and caffenet',
        "alexnet_jax/models/layers.py:LocalResponseNorm",
        "tests/models/test_alexnet.py::test_exchanging_nets_equal_two_towers_computed_separately",
        "4 of conv1's 96 maps, and 4 of conv2's 256, would have other windows",
    ),
    Trap(
        "What stands between conv1 and conv2: the paper normalises, then pools; the authors' files "
        "pool between the norm and the ReLU; CaffeNet pools before it normalises.",
        "`conv1_order`, `conv2_order`; the presets original and caffenet have the others",
        "alexnet_jax/models/presets.py:PRESETS",
        "tests/models/test_alexnet.py::test_presets_equal_reference_in_float32",
        "pooled first, conv1's maps are normalised at 4.1 times fewer places",
    ),
    Trap(
        "The authors' code has a second norm, within each map over 5 x 5 pixels, that the paper "
        "does not mention.",
        "Only in the preset original",
        "alexnet_jax/ops/norms.py:within_map_norm",
        "tests/test_ops.py::test_within_map_norm_equals_neighbourhoods_one_by_one",
    ),
    Trap(
        "Which layers read both towers: conv3 and the full connections, not conv2, conv4, conv5.",
        "`exchange`; collectives stand there and nowhere else",
        "alexnet_jax/models/alexnet.py:AlexNet",
        "tests/test_parallel.py::test_towers_talk_where_the_papers_gpus_talk",
        "230,304 bytes an image instead of every layer's maps",
    ),
    Trap(
        "Averaging gradients over the towers: they hold different kernels, and only what both hold "
        "may be summed.",
        "Each tower keeps its own; gradients are summed over the batch's parts alone",
        "alexnet_jax/parallel.py:Axes",
        "tests/test_parallel.py::test_gradients_equal_one_device_in_float64",
        "one gradient for both: what sets the towers' kernels apart would decay to 2e-6 of the "
        "first draw over the paper's 90 epochs, and leave one tower twice",
    ),
    Trap(
        "Both towers with one random stream would drop the same units.",
        "The key of an image is folded with the tower's number",
        "alexnet_jax/ops/units.py:dropout_mask",
        "tests/test_ops.py::test_dropout_draws_each_tower_and_image_independently",
        "a unit and its like in the other tower are dropped together 25% of the time, not 50%",
    ),
    Trap(
        "Rows of fc6: flattening each tower and joining them is not flattening the joined maps.",
        "Tower by tower, on one device and on two",
        "alexnet_jax/models/layers.py:_flatten",
        "tests/models/test_alexnet.py::test_exchanging_nets_equal_two_towers_computed_separately",
        "8,960 of the 9,216 rows would stand elsewhere",
    ),
    Trap(
        "Dropout: the paper masks in training and halves in testing; libraries double in training.",
        "The paper's; `dropout_style=\"inverted\"` is Caffe's",
        "alexnet_jax/ops/units.py:dropout",
        "tests/test_ops.py::test_dropout_equals_reference",
        "another problem at the same rate and decay: signals of training are half as large",
    ),
    Trap(
        "Where dropout stands: after fc6 and fc7; torchvision drops before them.",
        "After; `dropout_at`, before in the preset torchvision",
        "alexnet_jax/models/alexnet.py:AlexNet",
        "tests/models/test_alexnet.py::test_dropout_falls_on_both_hidden_layers_independently",
        "fc6's 9,216 inputs are masked instead of fc8's 4,096",
    ),
    Trap(
        "Initial weights: 0.01 everywhere in the paper, 0.03 in conv3 to conv5 in the authors' "
        "files, 0.005 in Caffe's fc6 and fc7.",
        'As printed; `initialization="original"` for runs that are to leave the plateau soon',
        "alexnet_jax/models/alexnet.py:INITIAL_STDDEV",
        "tests/models/test_alexnet.py::test_initial_weights_are_normal_with_the_rules_deviations",
        "digits at half the width stay at 90% error for 60 epochs with 0.01 (one seed), and for 40 "
        "whatever the biases (three seeds: results/plateau.png); photographs of 64 pixels for 20 "
        "(three seeds: results/ablations_64_width_0.5_20_epochs.png)",
    ),
    Trap(
        "Initial biases: 1 in conv2, conv4, conv5, fc6 and fc7, else 0; Caffe has 0.1 where the "
        "paper has 1.",
        "As printed; `hidden_bias`",
        "alexnet_jax/models/alexnet.py:AlexNet",
        "tests/models/test_alexnet.py::test_initial_weights_are_normal_with_the_rules_deviations",
        "digits leave the plateau later with 0.1, and latest with 0 (three seeds: "
        "results/plateau.png); photographs of 64 pixels after 20 epochs: 36.6% with 1, 40.8% with "
        "0.1, 60.6% with 0 (three seeds: results/ablations_64_width_0.5_20_epochs.png)",
    ),
    Trap(
        "Pixels: the initial weights and LRN's constants are for 0 to 255 less the mean; dividing "
        "by 255 or by deviations starves the signal.",
        "0 to 255; pixels that no augmentation prepared are refused",
        "alexnet_jax/augment.py:Augmentation",
        "tests/test_augment.py::test_mean_colour_is_subtracted_everywhere",
        "digits on pixels divided by 57, the deviation of photographs, stay on the plateau for 40 "
        "epochs, whatever the initial weights and biases (three seeds: results/plateau.png)",
    ),
    Trap(
        "The mean image: subtracted at the crop's own place, or its centre from every crop and "
        "never mirrored, as the authors' code does.",
        '`mean_at` "crop"; "center" is theirs',
        "alexnet_jax/augment.py:Augmentation",
        "tests/test_augment.py::test_a_mirrored_crop_has_the_mean_subtracted_as_the_paper_or_the_"
        "authors_do",
    ),
    Trap(
        "Colour: the paper multiplies by eigenvalues, the authors' code by their roots, the "
        "standard deviations, and divides the image by 1.1.",
        '`color="std"`; "eigenvalue" as printed, `scale_with_color` for the division',
        "alexnet_jax/augment.py:_color_shift",
        "tests/test_augment.py::test_colour_shifts_along_the_axes_by_their_deviations",
        "as printed and on pixels of 0 to 255 the shift would be up to 122 times as large",
    ),
    Trap(
        "Training crops: 33 x 33 offsets, so that the corners of the test views are among them; "
        "the paper's 2,048 counts 32 x 32. The authors' code gives 32 images in a row one crop.",
        "33 x 33, each image its own",
        "alexnet_jax/augment.py:augment",
        "tests/test_augment.py::test_every_offset_is_reached_and_all_equally_often",
        "2,178 variants of an image instead of 2,048",
    ),
    Trap(
        "Ten views: probabilities are averaged, not logits, and the views are for testing only.",
        "The authors' order, mean of probabilities",
        "alexnet_jax/augment.py:ten_views",
        "tests/test_augment.py::test_ten_views_are_the_authors_in_their_order",
    ),
    Trap(
        "Equal scores: to count the label right, or wrong, flatters or slights a dead net.",
        "Tied classes share the places, as in the authors' code",
        "alexnet_jax/scores.py:image_scores",
        "tests/test_step.py::test_equal_scores_share_the_slots",
        "a net of 1,000 equal scores has 99.9% top-1 error, not 0 or 100%",
    ),
    Trap(
        "Momentum: the velocity holds rate times gradient, so a drop of the rate does not touch "
        "it; `optax.sgd` scales afterwards and drops it too.",
        "The paper's recursion",
        "alexnet_jax/optimizer.py:update_rule",
        "tests/test_optimizer.py::test_old_momentum_keeps_the_rate_it_was_gathered_at",
        "after a drop by ten, the velocity of before still adds up to 9 steps of its size, not 0.9",
    ),
    Trap(
        "Weight decay: on weights alone, and through the rate; the usual helper decays biases too.",
        "Kernels alone",
        "alexnet_jax/optimizer.py:update_rule",
        "tests/test_optimizer.py::test_rule_equals_recursion_across_rate_drops",
        "a bias of 1 that no gradient moves would fall to 2e-6 over the paper's 90 epochs",
    ),
    Trap(
        "Rates of biases: equal in the paper; twice as high in Caffe; in the authors' "
        "files 0.02, or 0.002 in the end, whatever the kernels' rate.",
        "Equal; the recipes imagenet2012_original and imagenet2012_caffe have the others",
        "alexnet_jax/schedules.py:hyperparameters_at",
        "tests/test_schedules.py::test_biases_may_keep_their_rate",
        'biases of the authors\' "1 CNN" learn 2 times as fast as the kernels at the start, and '
        "2,000 times at the end",
    ),
    Trap(
        "When the rate drops: the paper says when the validation error stalls; the authors did it "
        "by hand, about epochs 23, 50 and 80.",
        'Those epochs; `schedule.name="plateau"` watches the error',
        "alexnet_jax/schedules.py:PAPER_DROPS",
        "tests/test_schedules.py::test_the_paper_divides_by_ten_after_23_50_and_80_of_90_epochs",
    ),
    Trap(
        "The one-GPU net: half the kernels in conv1 to conv4 alone; conv5 and the full "
        "connections keep their size.",
        "The preset one_gpu",
        "alexnet_jax/models/presets.py:PRESETS",
        "tests/models/test_alexnet.py::test_parameter_counts_of_the_papers_other_nets",
        "1.17 million parameters fewer, of 60.97 million",
    ),
)
