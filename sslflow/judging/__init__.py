"""What judges runs and draws what they have learned; nothing that a run itself needs."""
