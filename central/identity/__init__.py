"""People at central: users, roles, tokens, sessions, cards, the second person, the audit trail."""
