"""`python -m alexnet_jax COMMAND …`."""

from alexnet_jax.cli import main

if __name__ == "__main__":
    main()
