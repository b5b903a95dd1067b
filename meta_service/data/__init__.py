"""Images of the outside world, made ready once for every process of a machine."""
