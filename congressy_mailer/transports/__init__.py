"""Ways to hand a composed mail to a server. One protocol, :class:`.base.Transport`; one module for each way."""
