"""How fast a meta-gradient is, beside peers and the limit of the machine. Imports the project; nothing imports it."""
