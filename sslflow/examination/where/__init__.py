"""How well rows segment and detect, beside one another, with intervals."""
