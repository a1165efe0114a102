"""Looking inside a trained network: the figures and numbers of sections 6 and 6.1."""
