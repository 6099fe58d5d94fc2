"""Packing picture files into RecordIO, as im2rec does; a killed run is resumed, and every record read back."""
