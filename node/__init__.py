"""The node: keeper, template, daemon and the workers of one machine."""
