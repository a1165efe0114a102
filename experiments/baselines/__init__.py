"""What the paper beat, from libraries of their own.

The commands import those inside `main`, where one line says which extra brings a missing one.
"""

from absl import flags

flags.DEFINE_integer("seed", 0, "of the sampled descriptors and of what is learned from them")
