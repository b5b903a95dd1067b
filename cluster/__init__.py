"""Where it is computed: Ray actors, submission, and the embedded surroundings."""
