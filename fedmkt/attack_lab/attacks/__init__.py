"""The attacks, by what they go for: rows, labels, columns, cells, ids, messages, decoders, files."""
