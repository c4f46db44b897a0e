"""The settings that people write as TOML, for a job and for each participant, with their defaults."""
