"""The attack lab: known attacks on joint models, run against what each party of a run was really shown."""
