"""Raw input -> arrays, and model outputs -> predictions. numpy only, the same code everywhere."""
