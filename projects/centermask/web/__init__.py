"""A web page that runs an exported detector in the visitor's browser."""
