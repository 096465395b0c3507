"""The paper's tables: the index of models read as rows, measured, printed and checked; and what a row's config is."""
