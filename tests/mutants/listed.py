"""The errors that the suite has to notice, each with a test that must then fail.

Picked by hand, not made by mutmut, cosmic-ray or mutatest: those change every operator in turn,
thousands of runs of tests that compile, and know nothing of towers, means or momentum.
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    """An error that somebody could make.

    Fields:
      name: what is wrong.
      file: of the package, or, beginning with "experiments/", of those.
      old: text that stands in it exactly once.
      new: what stands there instead.
      test: "file::function", with a parameter in brackets where one will do; of the fast tier.
    """

    name: str
    file: str
    old: str
    new: str
    test: str

    @property
    def path(self) -> str:
        """The file from the root of the repository on."""
        return self.file if self.file.startswith("experiments/") else f"alexnet_jax/{self.file}"


# Tests that many rely on.
_WIRING = "tests/runs/test_wiring.py::"
_FIELDS = f"{_WIRING}test_fields_change_the_updates_as_the_paper_s_rule_would"
_BEST = f"{_WIRING}test_the_best_checkpoint_is_that_of_the_metric_named_and_is_the_one_tested"
_OLD_RUN = "tests/runs/test_old_run.py::test_it_goes_on_to_the_end_that_it_had"
_STOPPED = (
    "tests/runs/test_resume.py::test_killed_and_stopped_it_ends_as_the_undisturbed_run[stops0]"
)
_TOWERS = "tests/models/test_alexnet.py::test_exchanging_nets_equal_two_towers_computed_separately"
_INITIAL = (
    "tests/models/test_alexnet.py::test_initial_weights_are_normal_with_the_rules_deviations[paper]"
)
_LRN = "tests/test_ops.py::test_local_response_norm_equals_windows_one_by_one"
_RECURSION = "tests/test_optimizer.py::test_rule_equals_recursion_across_rate_drops"
_MESH = "tests/test_vitals.py::test_every_mesh_gives_the_same"
_COLOUR = "tests/test_augment.py::test_colour_shifts_along_the_axes_by_their_deviations"
_MEAN = (
    "tests/test_augment.py::"
    "test_a_mirrored_crop_has_the_mean_subtracted_as_the_paper_or_the_authors_do"
)
_EXPORT = "tests/interop/test_exported.py::test_pytorchs_layout_computes_the_same_in_pytorchs_way"
_CAFFE = "tests/interop/test_caffe.py::test_every_layer_is_that_of_caffe"

# --- what the configuration says ------------------------------------------------------------------

_CONFIGURATION = (
    *(
        Mutant(
            f"{field} does not reach the step",
            "runs/recipe.py",
            "for field in dataclasses.fields(Hyperparameters)",
            f'for field in dataclasses.fields(Hyperparameters) if field.name != "{field}"',
            f"{_FIELDS}[rates]",
        )
        for field in ("weight_decay", "momentum", "color_strength", "decay_multipliers")
    ),
    Mutant(
        "rate_multipliers do not reach the step",
        "runs/recipe.py",
        "fields.pop(name) for name in multipliers",
        "fields.pop(name) and {} for name in multipliers",
        f"{_FIELDS}[rates]",
    ),
    Mutant(
        "the rate of the biases does not reach the step",
        "runs/recipe.py",
        "bias_learning_rate=config.bias_learning_rate",
        "bias_learning_rate=None",
        f"{_FIELDS}[rates]",
    ),
    Mutant(
        "changes by hand are not made",
        "runs/recipe.py",
        ", *config.hand_changes),",
        ",),",
        f"{_FIELDS}[no colour]",
    ),
    Mutant(
        "the seed does not reach the order of the images",
        "runs/training.py",
        "seed=config.seed,\n            step=self.step",
        "seed=0,\n            step=self.step",
        f"{_FIELDS}[rates]",
    ),
    Mutant(
        "the seed does not reach the order of many updates in one call",
        "runs/training.py",
        "batch_size=config.batch_size, seed=config.seed)",
        "batch_size=config.batch_size, seed=0)",
        f"{_WIRING}test_many_updates_in_one_call_take_the_images_of_single_ones",
    ),
    Mutant(
        "the seed does not reach the run's key",
        "runs/recipe.py",
        "run_key(self.config.seed)",
        "run_key(0)",
        f"{_FIELDS}[rates]",
    ),
    Mutant(
        "the host's colour has a strength of its own",
        "runs/training.py",
        "color_strength=self.recipe.color_strength",
        "color_strength=0.1",
        f"{_FIELDS}[images]",
    ),
    Mutant(
        "the host's colour knows no changes by hand",
        "runs/recipe.py",
        'self._by_hand(step, "color_strength", self.config.color_strength)',
        "self.config.color_strength",
        f"{_WIRING}test_changes_by_hand_reach_the_host_s_colour",
    ),
    Mutant(
        "init_from is ignored",
        "runs/training.py",
        "if source := self.config.init_from:",
        "if source := None:",
        "tests/runs/test_transfer.py::test_a_run_starts_from_another_run_s_workdir",
    ),
    Mutant(
        "verify_data is ignored",
        "runs/recipe.py",
        "verify=config.verify_data",
        "verify=False",
        f"{_WIRING}test_every_field_of_the_data_reaches_them",
    ),
    Mutant(
        "all networks of an ensemble have one seed",
        "runs/launch.py",
        "member.seed, member.ensemble = seed, 1",
        "member.seed, member.ensemble = config.seed, 1",
        f"{_WIRING}test_the_networks_of_an_ensemble_have_seeds_of_their_own",
    ),
    Mutant(
        "a run goes on with another configuration",
        "runs/configuration.py",
        "if field not in allowed]",
        "if field in ()]",
        "tests/test_main.py::test_another_configuration_in_the_same_workdir_names_the_fields",
    ),
    Mutant(
        "another run's checkpoint is taken",
        "runs/configuration.py",
        "if field not in MAY_CHANGE]",
        "if field in ()]",
        "tests/runs/test_workdir.py::test_a_checkpoint_of_another_run_is_told",
    ),
)

# --- the life of a run ----------------------------------------------------------------------------

_RUN = (
    Mutant(
        "the test is of the last checkpoint",
        "runs/final_test.py",
        "load_run(workdir, mesh=mesh)",
        'load_run(workdir, which="last", mesh=mesh)',
        _BEST,
    ),
    Mutant(
        "the best is chosen without best_metric",
        "runs/training.py",
        "self._save(means[self.config.best_metric])",
        'self._save(means["top1_error"])',
        _BEST,
    ),
    Mutant(
        "the best is the worst",
        "runs/checkpoint.py",
        "return min(ranked)[1]",
        "return max(ranked)[1]",
        "tests/runs/test_checkpoint.py::test_keeps_the_last_and_the_best",
    ),
    Mutant(
        "the schedule sees the loss",
        "runs/training.py",
        'self.progress.schedule, means["top1_error"])',
        'self.progress.schedule, means["loss"])',
        f"{_WIRING}test_the_plateau_is_one_of_the_validation_error",
    ),
    Mutant(
        "a resumed run's draws begin again at step 0",
        "runs/training.py",
        "self.state, self.step = restored.state, restored.step",
        "self.state, self.step = restored.state.replace(step=jnp.int32(0)), restored.step",
        _OLD_RUN,
    ),
    Mutant(
        "a resumed run has another key",
        "runs/training.py",
        "self.state, self.step = restored.state, restored.step",
        "self.state, self.step = restored.state.replace(key=self.recipe.key), restored.step",
        _OLD_RUN,
    ),
    Mutant(
        "a resumed run has no velocity",
        "runs/training.py",
        "self.state, self.step = restored.state, restored.step",
        "self.state, self.step = restored.state, restored.step\n"
        "        still = jax.tree.map(jnp.zeros_like, self.state.opt_state)\n"
        "        self.state = self.state.replace(opt_state=still)",
        _OLD_RUN,
    ),
    Mutant(
        "a resumed run takes its images from the epoch's start",
        "runs/training.py",
        "step=self.step,\n            rows=rows",
        "step=self.step - self.step % self.recipe.epoch_steps,\n            rows=rows",
        _STOPPED,
    ),
    Mutant(
        "a resumed run's schedule begins again",
        "runs/training.py",
        "schedule=self.schedule.initial_state() | found.schedule",
        "schedule=self.schedule.initial_state()",
        _STOPPED,
    ),
    Mutant(
        "a resumed run forgets the metrics since the last line",
        "runs/training.py",
        "sums=meter.no_sums() | found.sums",
        "sums=meter.no_sums()",
        _STOPPED,
    ),
    Mutant(
        "the log keeps what was measured after the checkpoint",
        "runs/metrics_log.py",
        'if row["step"] <= (validated if row["split"] == "validation" else step)',
        'if (row["split"] != "validation" or row["step"] <= validated)',
        "tests/runs/test_metrics_log.py::"
        "test_vital_signs_are_lines_and_points_and_what_is_no_number_is_null",
    ),
    Mutant(
        "the log keeps a validation whose checkpoint was not saved",
        "runs/metrics_log.py",
        '(validated if row["split"] == "validation" else step)',
        "step",
        "tests/runs/test_metrics_log.py::"
        "test_what_was_measured_after_the_checkpoint_is_measured_again",
    ),
    Mutant(
        "the lock is not taken",
        "runs/launch.py",
        "with locked(workdir):",
        "with contextlib.nullcontext():",
        "tests/test_main.py::test_a_second_run_in_the_workdir_is_refused",
    ),
    Mutant(
        "SIGTERM saves nothing",
        "runs/training.py",
        "        self._save(None)\n        self.checkpoints.wait()",
        "        self.checkpoints.wait()",
        _STOPPED,
    ),
    Mutant(
        "a loss that is no number is not noticed",
        "runs/meter.py",
        "if not math.isfinite(loss):",
        "if False:",
        "tests/runs/test_meter.py::test_a_loss_that_is_no_number_is_told_with_its_update",
    ),
    Mutant(
        "parameters that are no numbers are saved",
        "runs/training.py",
        "if not health.all_finite(self.state):",
        "if False:",
        f"{_WIRING}test_parameters_that_are_no_numbers_are_not_saved",
    ),
    Mutant(
        "a checkpoint's digests are not compared",
        "runs/checkpoint.py",
        'if digest != manifest[item][path]["digest"]:',
        "if digest is None:",
        "tests/runs/test_checkpoint.py::test_a_flipped_bit_is_noticed_and_names_the_leaf",
    ),
    Mutant(
        "a head of the same classes in another order is taken as it is",
        "runs/transfer.py",
        "others = {name: leaf[..., order] for name, leaf in others.items()}",
        "others = dict(others)",
        "tests/runs/test_transfer.py::"
        "test_a_head_of_the_same_classes_in_another_order_is_put_in_this_one",
    ),
)

# --- the network ----------------------------------------------------------------------------------

_NETWORK = (
    Mutant(
        "LRN's k is Caffe's",
        "models/alexnet.py",
        "lrn_k: float = 2.0",
        "lrn_k: float = 1.0",
        _TOWERS,
    ),
    Mutant("LRN's n is 3", "models/alexnet.py", "lrn_size: int = 5", "lrn_size: int = 3", _TOWERS),
    Mutant(
        "LRN's alpha is divided by n",
        "models/alexnet.py",
        "lrn_alpha_over_n: bool = False",
        "lrn_alpha_over_n: bool = True",
        _TOWERS,
    ),
    Mutant(
        "LRN's beta is 1/2",
        "models/alexnet.py",
        "lrn_beta: float = 0.75",
        "lrn_beta: float = 0.5",
        _TOWERS,
    ),
    Mutant(
        "LRN's windows cross the towers' border",
        "models/layers.py",
        "blocks = 1 if self.across else towers.local",
        "blocks = 1",
        _TOWERS,
    ),
    Mutant(
        "poolings do not overlap",
        "models/alexnet.py",
        "pool_window: int = 3",
        "pool_window: int = 2",
        _TOWERS,
    ),
    Mutant(
        "it pools before it normalises",
        "models/alexnet.py",
        'conv1_order: tuple[str, ...] = ("activation", "lrn", "pool")',
        'conv1_order: tuple[str, ...] = ("activation", "pool", "lrn")',
        _TOWERS,
    ),
    Mutant(
        "the rate of dropout is 0.4",
        "models/alexnet.py",
        "dropout_rate: float = 0.5",
        "dropout_rate: float = 0.4",
        _TOWERS,
    ),
    Mutant(
        "conv1's zeros are ahead of the image",
        "models/alexnet.py",
        "return (0, reach - self.image_size) if",
        "return (reach - self.image_size, 0) if",
        _TOWERS,
    ),
    Mutant(
        "conv2 reads both towers",
        "models/alexnet.py",
        'exchange: tuple[str, ...] = ("conv3",',
        'exchange: tuple[str, ...] = ("conv2", "conv3",',
        "tests/models/test_alexnet.py::test_parameter_shapes_equal_reference[paper]",
    ),
    Mutant(
        "fc6's rows are of the joined maps where it reads its own",
        "models/layers.py",
        "x = _flatten(x, groups)",
        "x = _flatten(x, 1)",
        "tests/models/test_alexnet.py::test_logits_and_gradients_equal_reference[split_map]",
    ),
    Mutant(
        "initial biases are Caffe's",
        "models/alexnet.py",
        "hidden_bias: float = 1.0",
        "hidden_bias: float = 0.1",
        _INITIAL,
    ),
    Mutant(
        "conv3's initial bias is 1",
        "models/alexnet.py",
        'Layer("conv3", c3, 3, 1, (1, 1), relu)',
        'Layer("conv3", c3, 3, 1, (1, 1), relu, one)',
        _INITIAL,
    ),
    Mutant(
        "initial weights are twice as large",
        "models/alexnet.py",
        "stddev.get(row.name, 0.01)",
        "stddev.get(row.name, 0.02)",
        _INITIAL,
    ),
    Mutant(
        "both hidden layers drop the same units",
        "models/network.py",
        "keys = _fold_in(dropout_keys, row.number)",
        "keys = dropout_keys",
        "tests/models/test_alexnet.py::test_dropout_falls_on_both_hidden_layers_independently",
    ),
    Mutant(
        "both towers drop the same units",
        "ops/units.py",
        "jax.random.fold_in(key, tower), keep",
        "key, keep",
        "tests/test_ops.py::test_dropout_draws_each_tower_and_image_independently",
    ),
    Mutant(
        "nothing is halved at test",
        "ops/units.py",
        'return x * keep if style == "paper" else x',
        "return x",
        _TOWERS,
    ),
    Mutant(
        "LRN's gradient lacks a factor of 2",
        "ops/norms.py",
        "(2 * alpha * beta) * a * spread",
        "(alpha * beta) * a * spread",
        _LRN,
    ),
    Mutant(
        "LRN's gradient is not of the transposed window",
        "ops/norms.py",
        "size, towers, transpose=True)",
        "size, towers)",
        "tests/test_ops.py::test_local_response_norm_clips_any_window",
    ),
    Mutant(
        "pooling's gradient goes to the last maximum",
        "ops/pools.py",
        "jnp.where(tap > pooled,",
        "jnp.where(tap >= pooled,",
        "tests/test_ops.py::test_max_pool_with_ties_sends_the_gradient_to_the_first",
    ),
    Mutant(
        "a few images pass the full connections by another product of theirs",
        "ops/linear.py",
        "image, taps = x[None, :, None], kernel[None, None]",
        "image, taps = x[None, ::-1, None], kernel[None, None]",
        "tests/test_ops.py::test_dense_reads_its_own_towers[1-3-float32]",
    ),
    Mutant(
        "few rows of bfloat16 round the kernel on CPU",
        "ops/linear.py",
        "if on_cpu() and (_few_rows(x) or not cpu_multiplies_bfloat16()):",
        "if on_cpu() and not cpu_multiplies_bfloat16():",
        "tests/test_ops.py::"
        "test_weights_are_rounded_to_bfloat16_where_that_makes_the_product_faster[cpu-True-96-False]",
    ),
    Mutant(
        "a CPU without instructions for bfloat16 rounds the kernel",
        "ops/linear.py",
        "if on_cpu() and (_few_rows(x) or not cpu_multiplies_bfloat16()):",
        "if on_cpu() and _few_rows(x):",
        "tests/test_ops.py::"
        "test_weights_are_rounded_to_bfloat16_where_that_makes_the_product_faster[cpu-False-97-False]",
    ),
    Mutant(
        "maxima of bfloat16 are rounded one by one on CPU",
        "ops/pools.py",
        "if on_cpu():",
        "if False:",
        "tests/test_ops.py::"
        "test_max_pool_of_bfloat16_gives_its_maxima_and_rounds_a_gradient_once_on_cpu",
    ),
)

# --- augmentation ---------------------------------------------------------------------------------

_AUGMENTATION = (
    Mutant(
        "the last offset is never taken",
        "augment.py",
        "(2,), 0, margin + 1, jnp.int32)",
        "(2,), 0, margin, jnp.int32)",
        "tests/test_augment.py::test_every_offset_is_reached_and_all_equally_often",
    ),
    Mutant(
        "a third of the crops is mirrored",
        "augment.py",
        "bernoulli(flip_key, jnp.float32(0.5))",
        "bernoulli(flip_key, jnp.float32(1 / 3))",
        "tests/test_augment.py::test_half_of_the_crops_are_mirrored_whatever_their_offset",
    ),
    Mutant(
        "the mean image is not mirrored with the crop",
        "augment.py",
        "x = jnp.where(flip, x[:, ::-1], x)",
        "mean = -_crop(jnp.zeros_like(image), offset, augmentation, image_size)\n"
        "            x = jnp.where(flip, (x + mean)[:, ::-1] - mean, x)",
        f"{_MEAN}[crop]",
    ),
    Mutant(
        "the centre of the mean image is mirrored with the crop",
        "augment.py",
        "        if augmentation.flip:\n"
        "            x = jnp.where(flip, x[:, ::-1], x)\n"
        "        x = _less_center_mean(x, augmentation, image_size)\n",
        "        x = _less_center_mean(x, augmentation, image_size)\n"
        "        if augmentation.flip:\n"
        "            x = jnp.where(flip, x[:, ::-1], x)\n",
        f"{_MEAN}[center]",
    ),
    Mutant(
        "colours shift by eigenvalues where deviations are asked for",
        "augment.py",
        'if augmentation.color == "eigenvalue":',
        "if True:",
        _COLOUR,
    ),
    Mutant(
        "the axes of the colours are rows",
        "augment.py",
        "jnp.matmul(axes, along_axes,",
        "jnp.matmul(axes.T, along_axes,",
        _COLOUR,
    ),
    Mutant(
        "every step draws the same",
        "augment.py",
        "step_key = jax.random.fold_in(threefry(key), step)",
        "step_key = threefry(key)",
        "tests/test_augment.py::test_pixels_depend_on_seed_step_and_position_alone",
    ),
    Mutant(
        "the five mirrored views stand on their heads",
        "augment.py",
        "crops[..., ::-1, :]",
        "crops[..., ::-1, :, :]",
        "tests/test_augment.py::test_ten_views_are_the_authors_in_their_order",
    ),
    Mutant(
        "test views lose the mean of their own place where the authors' take its centre",
        "augment.py",
        "cut(mean)[:, None] if in_place else _centre(mean, image_size)",
        "cut(mean)[:, None]",
        "tests/test_augment.py::test_mirrored_views_have_the_centre_mean_subtracted_as_it_stands",
    ),
    Mutant(
        "a change by hand is not seen until the rate changes, too",
        "runs/recipe.py",
        "return self._hyperparameters(self.schedule.learning_rate(step, state), changed)",
        "return self._hyperparameters(self.schedule.learning_rate(step, state), 0)",
        "tests/runs/test_wiring.py::"
        "test_hyperparameters_are_made_again_only_where_something_changes",
    ),
    Mutant(
        "ten views average logits",
        "eval_step.py",
        "return jax.nn.logsumexp(log_probs, axis=0) - math.log(count)",
        "return jax.nn.log_softmax(log_probs.mean(0))",
        "tests/test_step.py::test_evaluation_sums_equal_reference[ten]",
    ),
)

# --- the update -----------------------------------------------------------------------------------

_UPDATE = (
    Mutant(
        "old momentum is scaled with a drop of the rate",
        "optimizer.py",
        "optax.stateless(scaled), optax.trace(momentum))",
        "optax.trace(momentum), optax.stateless(scaled))",
        _RECURSION,
    ),
    Mutant(
        "momentum is Nesterov's",
        "optimizer.py",
        "optax.trace(momentum)",
        "optax.trace(momentum, nesterov=True)",
        _RECURSION,
    ),
    Mutant(
        "biases are decayed",
        "optimizer.py",
        'expand(decay_multipliers, params, {"bias": 0.0})',
        "expand(decay_multipliers, params, {})",
        _RECURSION,
    ),
    Mutant(
        "gradients are averaged over the towers",
        "step.py",
        "        transform = _rule_at(rule, hparams)\n",
        "        if axes.towers:\n"
        "            gradients = jax.tree.map(\n"
        "                lambda g: g * 0 + jax.lax.pmean(g, axes.towers), gradients\n"
        "            )\n"
        "        transform = _rule_at(rule, hparams)\n",
        _MESH,
    ),
    Mutant(
        "gradients are summed over the batch's parts, each a mean",
        "step.py",
        "count = here * axes.shards",
        "count = here",
        _MESH,
    ),
    Mutant(
        "every part of the batch draws the same",
        "parallel.py",
        "return shard * images + jnp.arange(images, dtype=jnp.int32)",
        "return 0 * shard + jnp.arange(images, dtype=jnp.int32)",
        "tests/test_parallel.py::test_gradients_equal_one_device_in_float64[paper-(4, 2)]",
    ),
    Mutant(
        "the towers' logits are averaged",
        "parallel.py",
        "return x if axis is None else lax.psum(x, axis)",
        "return x if axis is None else lax.pmean(x, axis)",
        _MESH,
    ),
    Mutant(
        "the rate drops an update late",
        "schedules.py",
        "step >= drop for drop",
        "step > drop for drop",
        "tests/test_schedules.py::test_the_paper_divides_by_ten_after_23_50_and_80_of_90_epochs",
    ),
    Mutant(
        "the biases' own rate follows the schedule",
        "schedules.py",
        'rate = fields.get("learning_rate", learning_rate)',
        "rate = 0.01",
        "tests/test_schedules.py::test_biases_may_keep_their_rate",
    ),
    Mutant(
        "the biases' own rate follows a change by hand",
        "schedules.py",
        'rate = fields.get("learning_rate", learning_rate)',
        "rate = learning_rate",
        "tests/test_schedules.py::test_biases_keep_their_rate_where_the_rate_is_changed_by_hand",
    ),
    Mutant(
        "one factor on a layer's decay decays its biases, too",
        "schedules.py",
        "change.get(name, usual) if by_name else change * usual",
        "change.get(name, usual) if by_name else change",
        "tests/test_schedules.py::test_decays_change_by_hand_as_rates_do_and_biases_stay_undecayed",
    ),
    Mutant(
        "256 classes are none in labels of 8 bits",
        "scores.py",
        "labels = labels.astype(np.int32)",
        "pass",
        "tests/runs/test_evaluation.py::test_labels_of_few_bits_are_classes_too[uint8-256]",
    ),
    Mutant(
        "the speed of an evaluation counts the first batch, not its time",
        "runs/evaluation.py",
        'started, seen = time.perf_counter(), len(batch["label"])',
        "started = time.perf_counter()",
        "tests/runs/test_evaluation.py::test_speed_is_that_after_the_first_batch[8-20]",
    ),
    Mutant(
        "a label of -1 is the last class",
        "scores.py",
        "return (labels >= 0) & (labels < num_classes)",
        "return labels < num_classes",
        "tests/test_step.py::"
        "test_a_label_of_no_class_is_loud_in_training_and_never_right_in_evaluation[-1]",
    ),
)

# --- what is measured, and of what ----------------------------------------------------------------

_MEASURES = (
    Mutant(
        "classes tied with the label count as below it",
        "scores.py",
        "xp.clip((k - above) / tied, 0, 1)",
        "xp.where(above < k, 1.0, 0.0)",
        "tests/runs/test_evaluation.py::test_ties_share_the_places_that_are_left",
    ),
    Mutant(
        "a net of NaN is right",
        "scores.py",
        "(~(log_probs <= own)).sum(-1)",
        "(log_probs > own).sum(-1)",
        "tests/test_step.py::test_a_net_of_nans_is_always_wrong",
    ),
    Mutant(
        "the copies that fill up the last batch count",
        "data/batches.py",
        '"mask": (positions < size).astype',
        '"mask": (positions >= 0).astype',
        "tests/data/test_batches.py::test_evaluation_counts_every_image_once",
    ),
    Mutant(
        "an ensemble averages log-probabilities",
        "runs/evaluation.py",
        "np.asarray(logsumexp(log_probs[used].astype(np.float64), axis=0, b=share))",
        "np.asarray((log_probs[used].astype(np.float64) * share).sum(0))",
        "tests/runs/test_evaluation.py::"
        "test_an_average_is_the_weighted_mean_of_probabilities_and_keeps_tiny_ones",
    ),
    Mutant(
        "every epoch has the same order",
        "data/batches.py",
        "drop_remainder=True).repeat()",
        "drop_remainder=True).repeat(reseed_each_epoch=False)",
        "tests/data/test_batches.py::test_every_image_comes_once_an_epoch_in_a_new_order",
    ),
    Mutant(
        "neighbouring seeds share their epochs",
        "data/batches.py",
        "shuffle(seed=int(hashed))",
        "shuffle(seed=seed)",
        "tests/data/test_batches.py::test_no_two_seeds_share_an_epoch",
    ),
    Mutant(
        "images are cut from their top left corner",
        "data/images.py",
        "left, top = (width - side) / 2, (height - side) / 2",
        "left, top = 0, 0",
        "tests/data/test_images.py::test_short_side_then_centre_crop",
    ),
    Mutant(
        "the colours' deviations are variances",
        "data/statistics.py",
        "deviations=np.sqrt(variances.clip(0)).astype",
        "deviations=variances.clip(0).astype",
        "tests/data/test_statistics.py::test_statistics_equal_numpys",
    ),
    Mutant(
        "statistics of another state of the data are taken",
        "data/statistics.py",
        'if str(file["fingerprint"]) != fingerprint:',
        "if not fingerprint:",
        "tests/data/test_statistics.py::test_statistics_of_another_state_of_the_set_are_not_taken",
    ),
    Mutant(
        "a shard's digest is not compared",
        "data/shards.py",
        "digest is not None and digest != expected.sha256",
        "digest is not None and not digest",
        "tests/data/test_shards.py::test_swapped_shards_are_named",
    ),
    Mutant(
        "a host's rows of a batch are augmented as the first",
        "data/host.py",
        "positions = first + jnp.arange",
        "positions = 0 * first + jnp.arange",
        "tests/data/test_host.py::test_each_process_augments_its_rows_as_the_whole_batch",
    ),
    Mutant(
        "the explorer's patches are a pixel aside",
        "inspect/explorer.py",
        "field.start + int(at) * field.stride for at in place",
        "field.start + 1 + int(at) * field.stride for at in place",
        "tests/inspect/test_explorer.py::test_patches_are_the_pixels_that_a_unit_sees[conv3]",
    ),
    Mutant(
        "a unit's place is its column, row",
        "inspect/units.py",
        "np.stack([at // width, at % width], -1)",
        "np.stack([at % width, at // width], -1)",
        "tests/inspect/test_units.py::test_they_are_those_of_a_search_through_all",
    ),
    Mutant(
        "fields of vision forget the zeros ahead of the image",
        "models/receptive.py",
        "self.start - before * self.stride",
        "self.start",
        "tests/models/test_receptive.py::test_nets_of_other_operations",
    ),
)

# --- other programs' weights ----------------------------------------------------------------------

_INTEROP = (
    Mutant(
        "Caffe's conv1 reads blue first",
        "interop/caffe.py",
        'params["conv1"]["kernel"][:, :, ::-1]',
        'params["conv1"]["kernel"][:, :, :]',
        _CAFFE,
    ),
    Mutant(
        "Caffe's fc6 keeps its order of rows",
        "interop/caffe.py",
        "kernel.reshape(channels, side, side, -1).transpose(1, 2, 0, 3).reshape(kernel.shape)",
        "kernel",
        _CAFFE,
    ),
    Mutant(
        "Caffe's mean is blue first",
        "interop/imported.py",
        "[:: -1 if bgr else 1]",
        "[:: -1 if not bgr else 1]",
        "tests/interop/test_caffe.py::test_means_become_rgb",
    ),
    Mutant(
        "the authors' towers are swapped",
        "interop/authors_graph.py",
        '(self.number(name, "gpu", 0), order.index(name))',
        '(-self.number(name, "gpu", 0), order.index(name))',
        "tests/interop/test_authors.py::test_every_layer_is_that_of_their_code[ab]",
    ),
    Mutant(
        "the authors' towers are joined as a layer reads them",
        "interop/authors_graph.py",
        "joined = [parts[tower] for tower in sorted(parts)]",
        "joined = list(parts.values())",
        "tests/interop/test_authors.py::test_inputs_in_another_order_are_the_same_net",
    ),
    Mutant(
        "kernels for PyTorch are turned",
        "interop/pytorch.py",
        "_TO_THEIRS = {4: (3, 2, 0, 1)",
        "_TO_THEIRS = {4: (3, 2, 1, 0)",
        _EXPORT,
    ),
    Mutant(
        "fc6's rows for PyTorch stay as they are",
        "interop/pytorch.py",
        "kernel = _channels_first(kernel, _maps(run.model), path)",
        "kernel = kernel",
        _EXPORT,
    ),
    Mutant(
        "weights for PyTorch are not halved where it does not drop",
        "interop/pytorch.py",
        'kernel = leaves["kernel"] * scale[row.name]',
        'kernel = leaves["kernel"]',
        _EXPORT,
    ),
)

# --- what experiments find ------------------------------------------------------------------------

_JUDGES = "tests/test_findings.py::test_each_finder_judges"
_EXPERIMENTS = (
    Mutant(
        "the interval is of the images alone",
        "experiments/verdicts.py",
        "math.hypot(of_seeds, of_images)",
        "of_images",
        "tests/test_ledger.py::test_an_interval_holds_the_paired_seeds_and_the_shared_images",
    ),
    Mutant(
        "images that both nets got wrong are not heeded",
        "experiments/verdicts.py",
        "each = apart.sum(1) - (",
        "each = 1 - (",
        "tests/test_findings.py::"
        "test_nets_that_were_wrong_about_the_same_images_differ_by_a_narrower_interval",
    ),
    Mutant(
        "a slower net need not be slower with every seed",
        "experiments/verdicts.py",
        "always = all(",
        "always = any(",
        "tests/test_ledger.py::test_sooner_is_with_every_seed",
    ),
    Mutant(
        "a net has finished while its training error is under its test error",
        "experiments/verdicts.py",
        "train <= test / 2",
        "train <= test",
        "tests/test_findings.py::test_nets_that_were_still_learning_say_which_learns_sooner",
    ),
    Mutant(
        "towers are split in part though most seeds' are not",
        "experiments/findings_inside.py",
        "split >= 0.5",
        "split >= 0.3",
        _JUDGES,
    ),
    Mutant(
        "the spread is of all there are, not of a sample",
        "experiments/tables.py",
        "ddof=1",
        "ddof=0",
        "tests/test_sweep.py::test_the_spread_is_that_of_students_t",
    ),
    Mutant(
        "figure 1 takes the slowest rate",
        "experiments/paper/figure1.py",
        "return min(tried",
        "return max(tried",
        "tests/test_paper.py::test_figure_1_takes_the_rate_that_is_soonest_for_the_other_seeds",
    ),
    Mutant(
        "halves that are split less are counted",
        "experiments/paper/specialisation.py",
        "chance[seed] >= split",
        "chance[seed] < split",
        "tests/test_paper.py::test_a_split_is_compared_with_random_halves_of_the_same_kernels",
    ),
    Mutant(
        "the plateau ends at another loss",
        "experiments/paper/ablations.py",
        "or np.inf) < 2:",
        "or np.inf) < 2.2:",
        "tests/test_paper.py::test_an_ablation_says_in_which_epoch_a_net_left_the_plateau",
    ),
    Mutant(
        "updates are of one epoch too many",
        "experiments/paper/plateau.py",
        'round(steps * run["epochs"])',
        'round(steps * (run["epochs"] + 1))',
        "tests/test_paper.py::test_updates_to_the_end_of_the_plateau_are_counted_between_epochs",
    ),
)

MUTANTS = (
    *_CONFIGURATION,
    *_RUN,
    *_NETWORK,
    *_AUGMENTATION,
    *_UPDATE,
    *_MEASURES,
    *_INTEROP,
    *_EXPERIMENTS,
)
