"""What operates a deployment: folders, keys, certificates, admission, checks and processes."""
