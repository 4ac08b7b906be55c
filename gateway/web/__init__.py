"""The technician page: one screen that says whether the line can produce."""
