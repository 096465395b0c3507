"""The paper's claims in small: rows trained on made pictures, and their paired differences."""
