"""What a party asks before it takes part and before anything leaves: small rules with an id, each refusing by name."""
