"""Independent references in plain NumPy, float64: the tests hold the package against them."""
