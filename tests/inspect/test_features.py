"""Features are what the network holds at a layer, for arrays, splits and files."""

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.augment import center_view
from alexnet_jax.inspect.features import extract_features, file_batches, split_batches


def test_fc7_is_what_fc8_multiplies(run, digits):
    images = digits.source.read(np.arange(5))["image"]
    features = extract_features(run, images)
    assert features.shape == (5, 32)
    assert features.dtype == np.float32
    assert (features >= 0).all()  # after ReLU
    fc8 = run.state.params["fc8"]
    crops = center_view(images, run.augmentation, run.model.image_size)[0]
    logits = run.model.apply({"params": run.state.params}, crops)
    np.testing.assert_allclose(features @ fc8["kernel"] + fc8["bias"], logits, atol=1e-5)


def test_a_split_keeps_its_order_and_leaves_out_the_padding(run, digits):
    labels = []
    features = extract_features(run, split_batches(digits, labels))  # 60 images: one padded batch
    everything = digits.source.read(np.arange(60))
    np.testing.assert_array_equal(np.concatenate(labels), everything["label"])
    expected = extract_features(run, everything["image"])
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_files_that_cannot_be_read_are_named_and_the_rest_kept(run, digits, tmp_path):
    images = digits.source.read(np.arange(3))["image"]
    files = [tmp_path / f"{n}.png" for n in range(3)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    files[1].write_bytes(b"no image")
    names, problems = [], []
    features = extract_features(run, file_batches(files, 72, names, problems))
    assert names == [str(files[0]), str(files[2])]
    expected = extract_features(run, images[[0, 2]])
    np.testing.assert_allclose(features, expected, atol=1e-5)
    (problem,) = problems
    assert "1.png" in str(problem)


def test_unknown_layer_is_named_with_a_suggestion(run):
    with pytest.raises(ValueError, match="no layer 'fc77'; did you mean 'fc7'"):
        extract_features(run, np.zeros((1, 72, 72, 3), np.uint8), layer="fc77")
