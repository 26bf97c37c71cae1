"""How well rows know depth, beside one another, with intervals."""
