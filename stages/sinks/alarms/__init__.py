"""Who is told what happened, when: rules, an outbox that survives everything, and targets."""
