"""Who may enroll, at central and at each gateway: kept here, sent to where it holds."""
