"""The host side: data sets, preparation, statistics, streams of batches."""
