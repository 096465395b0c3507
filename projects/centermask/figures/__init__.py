"""The paper's figures, made anew: accuracy against time, results on pictures, and the architecture."""
